"""Exponential moving average of a network's weights, kept in the checkpoint."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path


class MovingAverage(nn.Module):
    """A copy of a network that follows it: `average = decay * average + (1 - decay) * network`.

    Early on the decay is (1 + step) / (10 + step), so that a short training is not held back by its first weights.
    All tensors are updated in two fused calls and nothing waits for the device. As a submodule it is saved with the
    module that owns it, and a resumed run goes on bit for bit.

    Args:
        network: the network to follow; copied.
        decay: the largest decay.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.average: Any = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow the network after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(network.parameters()), 1 - decay)


def save_whole(model: Any, folder: Path) -> None:
    """A diffusers model's `save_pretrained` into a folder that is whole or absent; takes the place of an older one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
