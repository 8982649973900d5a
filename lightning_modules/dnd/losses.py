"""The generator's loss: mean squared error over weight tokens, one weight per token (arXiv 2506.16406).

Axis legend: B batch, T weight token, H LoRA rank + 2, W chunk + 2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_token_mse(
    out_BTHW: Tensor, target_BTHW: Tensor, token_weight_T: Tensor | None = None, mask_THW: Tensor | None = None
) -> Tensor:
    """Mean over the used cells of w_t * (out - target)^2, computed in fp32.

    The paper says MSE; the weights are in the authors' code. fp32 matters: an error of 0.002 in a scale code, which is
    one rounding step of bf16, changes the decoded scale of a small B by 15 %.

    Args:
        out_BTHW: generated tokens, any floating dtype.
        target_BTHW: tokens of snapshots, same shape. Unused cells may hold NaN.
        token_weight_T: one weight per token, mean 1 (`weight_tokens.token_weights`); None weighs all alike.
        mask_THW: bool, True where a cell is used; None uses all.

    Returns:
        Scalar, fp32.

    Raises:
        ValueError: if shapes do not fit each other.
    """
    if out_BTHW.shape != target_BTHW.shape or out_BTHW.ndim != 4:
        raise ValueError(
            f"out and target must share one shape [B, T, H, W]: {list(out_BTHW.shape)}, {list(target_BTHW.shape)}"
        )
    if token_weight_T is not None and token_weight_T.shape != out_BTHW.shape[1:2]:
        raise ValueError(f"token_weight must be [{out_BTHW.shape[1]}], got {list(token_weight_T.shape)}")
    if mask_THW is not None and mask_THW.shape != out_BTHW.shape[1:]:
        raise ValueError(f"mask must be {list(out_BTHW.shape[1:])}, got {list(mask_THW.shape)}")
    error_BTHW = out_BTHW.float() - target_BTHW.float()
    num_cells: Tensor | int = error_BTHW.numel()
    if mask_THW is not None:
        num_cells = mask_THW.sum() * error_BTHW.shape[0]
        # A select, not a product: NaN * 0 is NaN, and so would be its gradient.
        error_BTHW = torch.where(mask_THW, error_BTHW, 0.0)
    squared_BT = error_BTHW.square().sum(dim=(2, 3))
    if token_weight_T is not None:
        squared_BT = squared_BT * token_weight_T.float()
    return squared_BT.sum() / num_cells
