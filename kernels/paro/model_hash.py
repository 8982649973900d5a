"""A name for a model's weights that tells two trainings apart without reading all of their bytes."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

SAMPLES = 64  # values of each weight


def model_hash(model: nn.Module) -> str:
    """sha256 over names, shapes and 64 evenly spaced values of every parameter, rounded to bfloat16.

    So it stays the same when weights that were stored in bfloat16 are opened in float32, and on another device. Of
    weights that lie on several ranks every rank must ask: each weight is gathered for a moment.
    """
    seen = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        gather = getattr(weight, "full_tensor", None)  # a DTensor's
        flat = (weight if gather is None else gather()).detach().flatten()
        places = torch.linspace(0, max(0, len(flat) - 1), min(SAMPLES, len(flat)), dtype=torch.float64).long()
        values = flat[places.to(flat.device)].to(torch.bfloat16).cpu().view(torch.int16)
        seen.update(f"{name} {tuple(weight.shape)} ".encode() + values.numpy().tobytes())
    return seen.hexdigest()
