"""The function of paro/numerics.py at 4 bits by the compiled kernel, for NVIDIA GPUs from compute capability 8.0 on.

Axis legend: B batch, H head, N token, D channel, R query block, C key block, T tile (H heads of a batch, blocks).
"""

from __future__ import annotations

import ctypes
import json
import math
from functools import cache

import torch
from torch import Tensor

from ..paro.driver import CudaError, kernel, launch
from ..paro.orders import inverse, reorder
from ..paro.plan import unpack
from .build import FOLDER, PTX_OF, RECORD, WIDTHS, file_name
from .fragments import BLOCK, to_key_fragments, to_query_fragments, to_value_fragments

THREADS = 128
TOP = 7


def why_not(device: torch.device, width: int) -> str:
    """Why this kernel can't compute that, as words that follow "the 4-bit kernel"; empty if it can."""
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"needs compute capability 8.0 or more, and this GPU has {major}.{minor}"
    if width not in WIDTHS:
        return f"takes heads of {' or '.join(map(str, WIDTHS))} channels, not {width}"
    try:
        _kernel(torch.cuda.current_device() if device.index is None else device.index, width)
    except (CudaError, OSError) as error:
        return f"does not load: {error}"
    return ""


def int4_forward(
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
        q_BHND, k_BHND, v_BHND: in the tokens' own order, on the GPU.
        bits_bhRX: uint8 [B or 1, H or 1, R, ceil(R / 8)], kept blocks as `plan.pack` makes them.
        permutation_HN: which token each place of the mask's order holds.
        key_mask_BN: bool in the tokens' own order, False = a key that nobody sees; None = all are seen.
        scale: of the scores.

    Returns:
        [B, H, N, D] in q's dtype.
    """
    batch, heads, size, width = q_BHND.shape
    order_HN = permutation_HN.long()
    given, blocks = operands(q_BHND, k_BHND, v_BHND, bits_bhRX, order_HN, key_mask_BN, scale)
    out = torch.empty(batch, heads, blocks * BLOCK, width, device=q_BHND.device)
    attend(given, out)
    return reorder(out[:, :, :size], inverse(order_HN)).to(q_BHND.dtype)


def attend(given: list[Tensor], out_BHND: Tensor) -> None:
    """The kernel alone: from `operands` to the output in the mask's order, float32 [B, H, R * 64, D], contiguous."""
    batch, heads, size, width = out_BHND.shape
    blocks, device = size // BLOCK, out_BHND.device
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*given, out_BHND)]
    with torch.cuda.device(device):
        function = _kernel(device.index, width)
        launch(function, (blocks, batch * heads, 1), THREADS, 0, *pointers, ctypes.c_int(blocks))


def operands(
    q_BHND: Tensor,
    k_BHND: Tensor,
    v_BHND: Tensor,
    bits_bhRX: Tensor,
    order_HN: Tensor,
    key_mask_BN: Tensor | None,
    scale: float,
) -> tuple[list[Tensor], int]:
    """What kernel.py's `attend` takes, in its order but for `out`: fragments, steps, seen keys, lists; and R.

    Seen keys are bits, int32 [B, H, C, 2]: key i of a block is bit i % 32 of number i / 32.
    """
    batch, heads, size, _ = q_BHND.shape
    q, k, v = (reorder(t, order_HN).float() for t in (q_BHND, k_BHND, v_BHND))
    k = k - k.mean(2, keepdim=True)
    q, k, v = (_tiles(t) for t in (q, k, v))
    blocks = q.shape[2]
    (q, q_step), (k, k_step) = (_rounded(t, (3, 4)) for t in (q, k))
    v, v_step = _rounded(v.unflatten(4, (-1, BLOCK)), (3, 5))
    seen = torch.ones(batch, heads, size, dtype=torch.bool, device=q.device)
    if key_mask_BN is not None:
        seen = key_mask_BN[:, order_HN]
    words = torch.nn.functional.pad(seen, (0, blocks * BLOCK - size)).unflatten(2, (blocks, 2, 32))
    bits = (words.to(torch.int64) << torch.arange(32, device=q.device)).sum(-1)
    bits = torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32)
    keep = unpack(bits_bhRX, blocks).expand(batch, heads, -1, -1)
    return [
        to_query_fragments(q), to_key_fragments(k), to_value_fragments(v.flatten(4)),
        (q_step * (scale * math.log2(math.e))).contiguous(), k_step.contiguous(), v_step.contiguous(),
        bits.contiguous(), keep.sum(-1, dtype=torch.int32).contiguous(),
        keep.to(torch.int8).argsort(dim=-1, descending=True, stable=True).int().contiguous(),
    ], blocks  # fmt: skip


def _tiles(x_BHND: Tensor) -> Tensor:
    """Blocks of 64 tokens, [B, H, T, 64, D], with zeros after the last token."""
    return torch.nn.functional.pad(x_BHND, (0, 0, 0, -x_BHND.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK))


def _rounded(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Integers from -7 to 7 with a step for all that lies along some axes, and the steps, without these."""
    top = x.abs().amax(axes, keepdim=True)
    step = torch.where(top > 0, top, torch.ones_like(top)) / TOP
    return (x / step).round().to(torch.int8), step.squeeze(axes)


@cache
def _kernel(device: int, width: int) -> ctypes.c_void_p:
    found = torch.cuda.get_device_capability(device)
    name = file_name(PTX_OF, width, "ptx")  # which the driver compiles
    if found[0] == 8 or found == (9, 0):
        name = file_name("sm_80" if found[0] == 8 else "sm_90", width)
    names = json.loads(RECORD.read_text(encoding="utf-8"))["kernels"]
    return kernel(str(FOLDER / name), names[name], 0, device)
