"""How the Hopper kernels' tiles of 64 tokens lie in memory, in PyTorch: what cuda/prepass.cu writes and
cuda/attention_int8.cuh reads.

A tile of queries or keys has a row of D bytes for each token; a tile of values is transposed, a row of 64 bytes for
each channel, with the 16 keys of a group in `KEY_ORDER`. Rows are swizzled as wgmma reads them: the 16-byte pieces of
a row change places by an exclusive or with the row's number (PTX ISA 9.0, "Shared Memory Matrix Layout").

Axis legend: T tile, N token, D channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
PIECE = 16  # bytes
# The key at each place of a group of 16: where the scores' registers lie when they are read as 8-bit operands.
KEY_ORDER = (0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)


def swizzle(num_rows: int, row_bytes: int) -> Tensor:
    """Where byte (row, column) of a tile stands, int64 [num_rows, row_bytes].

    Args:
        num_rows: rows of the tile.
        row_bytes: 64 or 128.

    Raises:
        ValueError: for rows of another width.
    """
    if row_bytes not in (64, 128):
        raise ValueError(f"tiles have rows of 64 or 128 bytes, not {row_bytes}")
    row, column = torch.arange(num_rows)[:, None], torch.arange(row_bytes)[None]
    turn = row % 8 if row_bytes == 128 else row // 2 % 4
    return row * row_bytes + (column // PIECE ^ turn) * PIECE + column % PIECE


def to_row_tiles(x_ND: Tensor) -> Tensor:
    """Tokens to tiles of queries or keys: int8 [..., N, D] to [..., T, 64 * D], with zeros after the last token."""
    blocks = _blocks(x_ND)
    place = swizzle(BLOCK, x_ND.shape[-1]).flatten().to(x_ND.device)
    made = torch.empty_like(blocks).flatten(-2)
    made[..., place] = blocks.flatten(-2)
    return made


def from_row_tiles(tiles: Tensor, width: int) -> Tensor:
    """Tiles of queries or keys to tokens: [..., T, 64 * D] to [..., 64 * T, D]."""
    place = swizzle(BLOCK, width).flatten().to(tiles.device)
    return tiles[..., place].unflatten(-1, (BLOCK, width)).flatten(-3, -2)


def to_value_tiles(x_ND: Tensor) -> Tensor:
    """Tokens to tiles of values: int8 [..., N, D] to [..., T, D * 64]."""
    blocks = _blocks(x_ND)[..., key_places(), :].transpose(-2, -1)
    place = swizzle(x_ND.shape[-1], BLOCK).flatten().to(x_ND.device)
    made = torch.empty_like(blocks, memory_format=torch.contiguous_format).flatten(-2)
    made[..., place] = blocks.flatten(-2)
    return made


def from_value_tiles(tiles: Tensor, width: int) -> Tensor:
    """Tiles of values to tokens: [..., T, D * 64] to [..., 64 * T, D]."""
    place = swizzle(width, BLOCK).flatten().to(tiles.device)
    blocks = tiles[..., place].unflatten(-1, (width, BLOCK)).transpose(-2, -1)
    return blocks[..., key_places().argsort(), :].flatten(-3, -2)


def key_places() -> Tensor:
    """The key at each place of a tile's 64, int64 [64]."""
    return (torch.arange(0, BLOCK, 16)[:, None] + torch.tensor(KEY_ORDER)).flatten()


def _blocks(x_ND: Tensor) -> Tensor:
    short = -x_ND.shape[-2] % BLOCK
    return torch.nn.functional.pad(x_ND, (0, 0, 0, short)).unflatten(-2, (-1, BLOCK))
