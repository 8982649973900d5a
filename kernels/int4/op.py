"""The 4-bit kernel as one operator that torch.compile and CUDA graphs take whole: fulgurite::paro_int4."""

import torch
from torch import Tensor

from .native import int4_forward, why_not

SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor bits, Tensor permutation, Tensor? key_mask, float scale) -> Tensor"


@torch.compiler.assume_constant_result
def has_units(device: torch.device, width: int) -> bool:
    """Whether a GPU multiplies 4-bit numbers itself (compute capability 8.x) and the kernel takes this head width."""
    return torch.cuda.get_device_capability(device)[0] == 8 and not why_not(device, width)


@torch.library.custom_op("fulgurite::paro_int4", mutates_args=(), device_types="cuda", schema=SCHEMA)
def paro_int4(q, k, v, bits, permutation, key_mask, scale):  # type: ignore[no-untyped-def]
    """`int4_forward`: attention of numerics.py at 4 bits on a GPU, in the tokens' own order."""
    return int4_forward(q, k, v, bits, permutation, key_mask, scale)


@paro_int4.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bits: Tensor, permutation: Tensor, key_mask: Tensor | None, scale: float):  # type: ignore[no-untyped-def]
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)
