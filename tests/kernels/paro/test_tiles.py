"""Layouts of the Hopper kernels' tiles: against PTX's own rule for swizzled shared memory, and the registers' order."""

from __future__ import annotations

import pytest
import torch

from fulgurite.kernels.paro import tiles


@pytest.mark.parametrize("row_bytes,rows", [(64, 64), (64, 128), (128, 64)])
def test_swizzle_is_the_exclusive_or_of_address_bits(row_bytes, rows) -> None:
    plain = torch.arange(rows * row_bytes)  # PTX: bits 4 to 6 (4 and 5) of an address with bits 7 to 9 (7 and 8)
    turn = plain >> 7 & (7 if row_bytes == 128 else 3)
    assert torch.equal(tiles.swizzle(rows, row_bytes).flatten(), plain ^ turn << 4)


def test_rows_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 64 or 128 bytes, not 96"):
        tiles.swizzle(64, 96)


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("tokens", [1, 64, 200])
def test_there_and_back(width, tokens) -> None:
    x = torch.randint(-127, 128, (2, 3, tokens, width), dtype=torch.int8)
    for there, back in ((tiles.to_row_tiles, tiles.from_row_tiles), (tiles.to_value_tiles, tiles.from_value_tiles)):
        made = there(x)
        assert made.shape == (2, 3, -(-tokens // 64), 64 * width)
        again = back(made, width)
        assert torch.equal(again[:, :, :tokens], x) and not again[:, :, tokens:].any()


def test_keys_stand_where_the_registers_of_the_scores_are_read() -> None:
    """wgmma's sums: a thread of quad place c holds columns 8 j + 2 c, 8 j + 2 c + 1 of a row. Its 8-bit operand: bytes
    4 c to 4 c + 3 of a row's first 16 in one register, of the next 16 in another (PTX ISA 9.0, wgmma fragments)."""
    place_of = {}
    for c in range(4):
        held = [8 * j + 2 * c + n for j in range(8) for n in range(2)]  # as they lie in the registers
        for register in range(4):  # packed in this order, four a register
            for byte in range(4):
                place_of[16 * register + 4 * c + byte] = held[4 * register + byte]
    assert tiles.key_places().tolist() == [place_of[place] for place in range(64)]
