"""How large the generated update B A is, module by module: a small error in a scale code can make it wrong by half."""

from __future__ import annotations

import torch
from torch import Tensor

from ...datamodules.dnd.weight_tokens import WeightTokenizer


def product_norm_ratio(tokenizer: WeightTokenizer, out_THW: Tensor, target_THW: Tensor) -> Tensor:
    """Median over modules of ||B A|| generated / ||B A|| of the target (Frobenius).

    Modules whose target is zero are left out; with none left the ratio is 1 if the output is zero too, else infinite.

    Args:
        tokenizer: the layout of both.
        out_THW: generated tokens.
        target_THW: a snapshot's tokens.
    """
    out, target = _norms(tokenizer.detokenize(out_THW)), _norms(tokenizer.detokenize(target_THW))
    ratios = [out[k] / target[k] for k in target if target[k] > 0]
    if not ratios:
        return torch.tensor(1.0 if max(out.values()) == 0 else float("inf"))
    return torch.stack(ratios).median()


def _norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """||B A||_F by module, from the r x r Gram matrices alone: tr((B^T B) (A A^T)) is its square."""
    found = {}
    for key, a_RI in state.items():
        if ".lora_A." in key:
            b_OR = state[key.replace(".lora_A.", ".lora_B.")]
            found[key] = ((b_OR.T @ b_OR) * (a_RI @ a_RI.T).T).sum().clamp_min(0).sqrt()
    return found
