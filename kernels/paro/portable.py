"""The attention of numerics.py at 8 bits in Triton, for NVIDIA GPUs from compute capability 8.0 on.

Rounding and reordering are PyTorch's; the kernel multiplies Q and K in int8 and carries the integers of P and V, which
fp16 holds exactly, through the fp16 units: signed times unsigned bytes are beyond Triton. A row's maximum is the one so
far, as in every kernel of this kind, where numerics.py knows the last: P's rounding differs by less than a step.

Axis legend: B batch, H head, N token, D channel, R query block, C key block.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .numerics import BLOCK
from .orders import inverse, reorder
from .plan import unpack

HEAD_DIMS = (32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def why_not(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """Why this kernel can't compute that, as words that follow "the Triton kernel"; empty if it can."""
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    if find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    if torch.cuda.get_device_capability(device) < (8, 0):
        major, minor = torch.cuda.get_device_capability(device)
        return f"needs compute capability 8.0 or more, and this GPU has {major}.{minor}"
    if dtype not in DTYPES:
        return f"takes bfloat16, float16 and float32, not {str(dtype).removeprefix('torch.')}"
    return "" if width in HEAD_DIMS else f"takes heads of 32, 64 or 128 channels, not {width}"


def portable_forward(
    q_BHND: Tensor,
    k_BHND: Tensor,
    v_BHND: Tensor,
    bits_bhRX: Tensor,
    permutation_HN: Tensor,
    key_mask_BN: Tensor | None,
    scale: float,
) -> Tensor:
    """Reorder, round, attend over kept blocks, put back in the tokens' own order.

    Args:
        q_BHND, k_BHND, v_BHND: in the tokens' own order.
        bits_bhRX: uint8 [B or 1, H or 1, R, ceil(R / 8)], kept blocks as `plan.pack` makes them.
        permutation_HN: which token each place of the mask's order holds.
        key_mask_BN: bool in the tokens' own order, False = a key that nobody sees; None = all are seen.
        scale: of the scores.

    Returns:
        [B, H, N, D] in q's dtype.
    """
    batch, heads, size, width = q_BHND.shape
    blocks = -(-size // BLOCK)
    order_HN = permutation_HN.long()
    q, k, v = (reorder(t, order_HN).float() for t in (q_BHND, k_BHND, v_BHND))
    q_ints, q_step = _rows(q)
    k_ints, k_step = _rows(k - k.mean(2, keepdim=True))
    v_top = v.abs().amax(2, keepdim=True)
    v_step = torch.where(v_top > 0, v_top, torch.ones_like(v_top)) / 127
    v_ints = (v / v_step).round().to(torch.float16).contiguous()
    seen = torch.ones(batch, heads, size, dtype=torch.int8, device=q.device)
    if key_mask_BN is not None:
        seen.copy_(key_mask_BN[:, order_HN])
    keep = unpack(bits_bhRX, blocks)
    count = keep.sum(-1, dtype=torch.int32).contiguous()
    column = keep.to(torch.int8).argsort(dim=-1, descending=True, stable=True).int().contiguous()
    out = torch.empty(batch, heads, size, width, device=q.device)
    _kernel()[(blocks, batch * heads)](
        q_ints, k_ints, v_ints, q_step * (scale * math.log2(math.e)), k_step, v_step.flatten(), seen, count, column,
        out, size, heads, blocks, count.shape[0], count.shape[1], width, BLOCK, num_warps=4, num_stages=2,
    )  # fmt: skip
    return reorder(out, inverse(order_HN)).to(q_BHND.dtype)


def _rows(x_BHND: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded with a step for every 64 rows: int8 [B, H, N, D] and float32 [B, H, R]."""
    blocks = torch.nn.functional.pad(x_BHND, (0, 0, 0, -x_BHND.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK))
    top = blocks.abs().amax((3, 4))
    step = torch.where(top > 0, top, torch.ones_like(top)) / 127
    ints = (blocks / step[..., None, None]).round().to(torch.int8).flatten(2, 3)[:, :, : x_BHND.shape[2]]
    return ints.contiguous(), step.contiguous()


@cache
def _kernel() -> Any:
    """The compiled function, made when it is first needed: importing triton takes a second."""
    import triton

    from .portable_kernel import attend

    return triton.jit(attend)
