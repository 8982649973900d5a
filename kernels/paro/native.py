"""The function of numerics.py at 8 bits by the kernels in cuda/, for NVIDIA's Hopper (compute capability 9.0).

Axis legend: B batch, H head, N token, D channel, R query block, C key block.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .driver import FOLDER, kernel, launch, why_not_loaded

BLOCK = 64
HEAD_DIMS = (64, 128)
DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
FILES = ("prepass.fatbin", "attention_int8.fatbin", "attention_bf16.fatbin")
_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float


@dataclass(frozen=True)
class Variant:
    """A compiled form of the attention kernel.

    Attributes:
        width: channels of a head.
        blocks: key blocks a step.
        slots: steps whose keys and values are on the chip.
        groups: warpgroups of a thread block that compute, each its own rows; another one loads.
        numbers: `int8`, or `bf16`: the control.
    """

    width: int
    blocks: int
    slots: int
    groups: int
    numbers: str = "int8"

    @property
    def file(self) -> str:
        """That holds the kernel."""
        return f"attention_{self.numbers}.fatbin"

    @property
    def name(self) -> str:
        """Of the kernel."""
        form = f"d{self.width}_k{self.blocks}_s{self.slots}_g{self.groups}"
        return f"attention_{self.numbers}_{form}"

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: each group's tile of queries, ring, key steps and barriers."""
        tile = BLOCK * self.width * (1 if self.numbers == "int8" else 2)
        small = 16 * (1 + self.blocks * self.slots) + 8 * (2 * self.slots + 2)
        return self.groups * (tile * (1 + 2 * self.blocks * self.slots) + small)


VARIANTS = {64: Variant(64, 2, 4, 3), 128: Variant(128, 1, 4, 3)}
CONTROLS = {64: Variant(64, 1, 4, 3, numbers="bf16"), 128: Variant(128, 1, 3, 2, numbers="bf16")}


class Arguments(ctypes.Structure):
    """`Arguments` of cuda/walk.cuh."""

    _fields_ = [
        *((name, _POINTER) for name in ("q", "k", "v", "q_step", "k_meta", "v_step")),
        *((name, _POINTER) for name in ("work", "next", "count", "column", "permutation", "out")),
        *((name, _LONG) for name in ("out_b", "out_h", "out_n")),
        *((name, _INT) for name in ("num_heads", "num_blocks", "num_tokens", "mask_heads", "mask_batches")),
        *((name, _INT) for name in ("num_items", "out_half")),
    ]


class Source(ctypes.Structure):
    """`Source` of cuda/prepass.cu."""

    _fields_ = [("data", _POINTER), ("b", _LONG), ("h", _LONG), ("n", _LONG)]


class PrepassArguments(ctypes.Structure):
    """`PrepassArguments` of cuda/prepass.cu."""

    _fields_ = [
        *((name, Source) for name in "qkv"),
        *((name, _POINTER) for name in ("permutation", "key_mask", "partial", "done", "k_mean", "v_step")),
        *((name, _POINTER) for name in ("q_tiles", "k_tiles", "v_tiles", "q_step", "k_meta")),
        ("q_factor", _FLOAT),
        *((name, _INT) for name in ("num_heads", "num_tokens", "num_blocks", "chunks", "smooth")),
    ]


@dataclass(frozen=True)
class Quantised:
    """q, k and v as the attention kernel reads them.

    Attributes:
        q, k, v: uint8 [B * H, R, 64 * D], tiles (tiles.py); of twice as many bytes for the control.
        q_step: float32 [B * H, R], times the scale of the scores and log2 e.
        k_meta: int32 [B * H, R, 4]: step (float), nothing, and a bit for each key that is seen.
        v_step: float32 [B * H, D].
        k_mean: float32 [B * H, D].
        shape: (B, H, N, D).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_step: Tensor
    k_meta: Tensor
    v_step: Tensor
    k_mean: Tensor
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Lists:
    """A mask as lists of kept key blocks.

    Attributes:
        count: int32 [b, h, R], how many a row keeps.
        column: int16 (read as unsigned) [b, h, R, C], which; the first `count` of a row.
        work: int32 [B * H * R], rows in the order in which they are computed: head by head, the longest first.
        next: int32 [2], zeros between launches: how many of them are taken, how many have found none left.
    """

    count: Tensor
    column: Tensor
    work: Tensor
    next: Tensor


def why_not(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """Why these kernels can't compute that, as words that follow "the Hopper kernel"; empty if they can.

    Args:
        device, dtype: of q, k and v.
        width: channels of a head.
    """
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    if (found := torch.cuda.get_device_capability(device)) != (9, 0):
        return f"needs compute capability 9.0, and this GPU has {found[0]}.{found[1]}"
    if missing := [name for name in FILES if not (FOLDER / name).is_file()]:
        return f"is not compiled in this installation ({', '.join(missing)} absent)"
    if dtype not in DTYPES:
        return f"takes bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    if width not in HEAD_DIMS:
        return f"takes heads of 64 or 128 channels, not {width}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return next((f"does not load: {reason}" for name in FILES if (reason := why_not_loaded(name, index))), "")


def lists_of(bits_bhRX: Tensor, batch: int, heads: int) -> Lists:
    """Lists of a mask's kept blocks.

    Args:
        bits_bhRX: uint8 [B or 1, H or 1, R, ceil(R / 8)] on the GPU, as `plan.pack` makes it.
        batch, heads: of the call.
    """
    bits = bits_bhRX.contiguous()
    b, h, size, _ = bits.shape
    count = torch.empty(b, h, size, dtype=torch.int32, device=bits.device)
    column = torch.empty(b, h, size, size, dtype=torch.int16, device=bits.device)
    work, next_two = (torch.empty(n, dtype=torch.int32, device=bits.device) for n in (batch * heads * size, 2))
    rows, index = b * h * size, bits.device.index
    with torch.cuda.device(bits.device):
        pointers = (_POINTER(t.data_ptr()) for t in (bits, count, column))
        columns = kernel("prepass.fatbin", "kept_columns", 0, index)
        launch(columns, ((rows + 3) // 4, 1, 1), 128, 0, *pointers, _INT(rows), _INT(size))
        pointers = (_POINTER(t.data_ptr()) for t in (count, work, next_two))
        longest = kernel("prepass.fatbin", "longest_first", 0, index)
        launch(longest, ((size + 127) // 128, batch * heads, 1), 128, 0, *pointers, *map(_INT, (size, heads, h, b)))
    return Lists(count, column, work, next_two)


def quantise(
    q_BHND: Tensor,
    k_BHND: Tensor,
    v_BHND: Tensor,
    permutation_HN: Tensor,
    key_mask_BN: Tensor | None,
    scale: float,
    smooth: bool = True,
    numbers: str = "int8",
) -> Quantised:
    """q, k and v in their heads' orders, in 8 bits, or as they are for the control.

    Args:
        q_BHND, k_BHND, v_BHND: bfloat16 or float16 on the GPU.
        permutation_HN: int32, which token each place holds.
        key_mask_BN: bool in the tokens' own order, False = a key that nobody sees.
        scale: of the scores.
        smooth: take K's mean off.
        numbers: `int8`, or `bf16` (of bfloat16 inputs alone, not smoothed).
    """
    batch, heads, size, width = q_BHND.shape
    blocks, device = -(-size // BLOCK), q_BHND.device
    if blocks > 1 << 16 or batch * heads >= 1 << 16:
        raise ValueError(f"q of shape {tuple(q_BHND.shape)}: at most 4,194,304 tokens, and 65,535 heads over the batch")
    tensors = [_rows_at_16_bytes(t) for t in (q_BHND, k_BHND, v_BHND)]
    bytes_each = BLOCK * width * (1 if numbers == "int8" else 2)
    tiles = torch.empty(3, batch * heads, blocks, bytes_each, dtype=torch.uint8, device=device)
    q_step = torch.empty(batch * heads, blocks, device=device)
    k_meta = torch.empty(batch * heads, blocks, 4, dtype=torch.int32, device=device)
    mean_and_step = torch.ones(2, batch * heads, width, device=device)
    chunks = min(32, max(1, size // 256))
    partial = torch.empty(batch * heads, chunks, 2, width, device=device)
    done = torch.zeros(batch * heads, dtype=torch.int32, device=device)
    mask = None if key_mask_BN is None else key_mask_BN.expand(batch, size).contiguous()
    given = PrepassArguments(
        *(Source(t.data_ptr(), *t.stride()[:3]) for t in tensors),
        permutation_HN.data_ptr(), None if mask is None else mask.data_ptr(), partial.data_ptr(), done.data_ptr(),
        mean_and_step[0].data_ptr(), mean_and_step[1].data_ptr(), *(t.data_ptr() for t in tiles),
        q_step.data_ptr(), k_meta.data_ptr(), scale * math.log2(math.e), heads, size, blocks, chunks, int(smooth),
    )  # fmt: skip
    end, grid = f"{DTYPES[q_BHND.dtype]}_d{width}", (blocks, batch * heads, 3)
    with torch.cuda.device(device):
        if numbers == "bf16":
            launch(kernel("attention_bf16.fatbin", f"arrange_{end}", 0, device.index), grid, 128, 0, given)
        else:
            statistics = kernel("prepass.fatbin", f"statistics_{end}", 0, device.index)
            launch(statistics, (chunks, batch * heads, 1), 256, 0, given)
            launch(kernel("prepass.fatbin", f"quantise_{end}", 0, device.index), grid, 128, 0, given)
    k_mean, v_step = mean_and_step
    return Quantised(tiles[0], tiles[1], tiles[2], q_step, k_meta, v_step, k_mean, (batch, heads, size, width))


def attend(
    given: Quantised, lists: Lists, permutation_HN: Tensor, out_BHND: Tensor, variant: Variant | None = None
) -> None:
    """Attention over kept blocks, written to the tokens' own places of `out_BHND` (bfloat16 or float16)."""
    _, heads, size, width = given.shape
    variant = variant or VARIANTS[width]
    blocks, device = given.q.shape[1], given.q.device
    arguments = Arguments(
        *(t.data_ptr() for t in (given.q, given.k, given.v, given.q_step, given.k_meta, given.v_step)),
        *(t.data_ptr() for t in (lists.work, lists.next, lists.count, lists.column, permutation_HN, out_BHND)),
        *out_BHND.stride()[:3],
        heads, blocks, size, lists.count.shape[1], lists.count.shape[0],
        lists.work.numel(), int(out_BHND.dtype == torch.float16),
    )  # fmt: skip
    with torch.cuda.device(device):
        function = kernel(variant.file, variant.name, variant.shared_bytes, device.index)
        thread_blocks = min(torch.cuda.get_device_properties(device).multi_processor_count, lists.work.numel())
        launch(function, (thread_blocks, 1, 1), 128 * (variant.groups + 1), variant.shared_bytes, arguments)


def paro_forward(
    q_BHND: Tensor,
    k_BHND: Tensor,
    v_BHND: Tensor,
    bits_bhRX: Tensor,
    permutation_HN: Tensor,
    key_mask_BN: Tensor | None,
    scale: float,
    smooth: bool = True,
    variant: Variant | None = None,
) -> Tensor:
    """Reorder, round, attend over kept blocks, put back in the tokens' own order: `quantise`, `lists_of`, `attend`.

    Returns:
        [B, H, N, D] in q's dtype.
    """
    numbers = "int8" if variant is None else variant.numbers
    given = quantise(q_BHND, k_BHND, v_BHND, permutation_HN, key_mask_BN, scale, smooth, numbers)
    lists = lists_of(bits_bhRX, *q_BHND.shape[:2])
    out = torch.empty(q_BHND.shape, dtype=q_BHND.dtype, device=q_BHND.device)
    attend(given, lists, permutation_HN, out, variant)
    return out


def _rows_at_16_bytes(x: Tensor) -> Tensor:
    """The tensor itself if its rows are contiguous and start at multiples of 16 bytes, else a copy."""
    fits = x.stride(3) == 1 and not any(s % 8 for s in x.stride()[:3]) and x.data_ptr() % 16 == 0
    return x if fits else x.clone(memory_format=torch.contiguous_format)  # `contiguous` keeps one that begins between
