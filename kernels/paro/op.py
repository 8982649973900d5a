"""`paro`'s kernels as operators that torch.compile and CUDA graphs take whole: fulgurite::paro_int8 and paro_bf16."""

import torch
from torch import Tensor

from . import native, portable

SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor bits, Tensor permutation, Tensor? key_mask, float scale) -> Tensor"


@torch.compiler.assume_constant_result
def kernels_for(device: torch.device, dtype: torch.dtype, width: int) -> tuple[str, str]:
    """Which kernels compute that: `hopper`, `triton` or nothing, and why none better.

    Args:
        device, dtype: of q, k and v.
        width: channels of a head.
    """
    hopper = native.why_not(device, dtype, width)
    if not hopper:
        return "hopper", ""
    triton = portable.why_not(device, dtype, width)
    return ("triton", f"the Hopper kernel {hopper}") if not triton else ("", f"the Triton kernel {triton}")


@torch.compiler.assume_constant_result
def has_control(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the Hopper kernel's control in bfloat16 computes that."""
    return dtype == torch.bfloat16 and not native.why_not(device, dtype, width)


@torch.library.custom_op("fulgurite::paro_int8", mutates_args=(), device_types="cuda", schema=SCHEMA)
def paro_int8(q, k, v, bits, permutation, key_mask, scale):  # type: ignore[no-untyped-def]
    """Attention of numerics.py at 8 bits on a GPU, in the tokens' own order: `native.paro_forward`, or
    `portable.portable_forward` where that cannot be.

    Args:
        q, k, v: [B, H, N, D].
        bits: uint8 [B or 1, H or 1, R, ceil(R / 8)], kept blocks as `plan.pack` makes them.
        permutation: int32 [H, N], which token each place of the mask's order holds.
        key_mask: bool [B, N], False = a key that nobody sees; None = all are seen.
        scale: of the scores.

    Returns:
        [B, H, N, D] in q's dtype, contiguous.
    """
    name, _ = kernels_for(q.device, q.dtype, q.shape[3])
    forward = native.paro_forward if name == "hopper" else portable.portable_forward
    return forward(q, k, v, bits, permutation, key_mask, scale)


@paro_int8.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bits: Tensor, permutation: Tensor, key_mask: Tensor | None, scale: float):  # type: ignore[no-untyped-def]
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


@torch.library.custom_op("fulgurite::paro_bf16", mutates_args=(), device_types="cuda", schema=SCHEMA)
def paro_bf16(q, k, v, bits, permutation, key_mask, scale):  # type: ignore[no-untyped-def]
    """The same without rounding to integers, by the Hopper kernel's control in bfloat16; arguments as `paro_int8`'s."""
    return native.paro_forward(q, k, v, bits, permutation, key_mask, scale, variant=native.CONTROLS[q.shape[3]])


@paro_bf16.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bits: Tensor, permutation: Tensor, key_mask: Tensor | None, scale: float):  # type: ignore[no-untyped-def]
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)
