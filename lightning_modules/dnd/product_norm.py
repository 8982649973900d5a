"""How large the generated update B A is, module by module: a small error in a scale code can make it wrong by half."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from ...datamodules.dnd.weight_tokens import WeightTokenizer


def product_norm_ratios(tokenizer: WeightTokenizer, out_THW: Tensor, target_THW: Tensor) -> dict[str, Tensor]:
    """||B A|| generated / ||B A|| of the target (Frobenius), for each kind of module (`q_proj`, …) over its layers.

    Modules whose target is zero are left out.

    Args:
        tokenizer: the layout of both.
        out_THW: generated tokens.
        target_THW: a snapshot's tokens.

    Returns:
        Kind of module -> [layers], fp32.
    """
    out, target = _norms(tokenizer.detokenize(out_THW)), _norms(tokenizer.detokenize(target_THW))
    ratios: dict[str, list[Tensor]] = defaultdict(list)
    for key, norm in target.items():
        if norm > 0:
            ratios[key.partition(".lora_A.")[0].rpartition(".")[2]].append(out[key] / norm)
    return {kind: torch.stack(found) for kind, found in ratios.items()}


def _norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """||B A||_F by module, from the r x r Gram matrices alone: tr((B^T B) (A A^T)) is its square."""
    found = {}
    for key, a_RI in state.items():
        if ".lora_A." in key:
            b_OR = state[key.replace(".lora_A.", ".lora_B.")]
            found[key] = ((b_OR.T @ b_OR) * (a_RI @ a_RI.T).T).sum().clamp_min(0).sqrt()
    return found
