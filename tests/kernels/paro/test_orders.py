"""Axis orders: the numbering, there and back, and attention that they leave as it is."""

from __future__ import annotations

import itertools

import pytest
import torch

from fulgurite.kernels.api import attention
from fulgurite.kernels.paro.orders import (
    IMAGE_ORDERS,
    VIDEO_ORDERS,
    Layout,
    inverse,
    inverse_permutation,
    order_name,
    permutation,
    reorder,
)

GRIDS = [(3, 4, 5), (5, 7)]


def test_every_order_once() -> None:
    assert sorted(VIDEO_ORDERS) == sorted(itertools.permutations(range(3)))
    assert sorted(IMAGE_ORDERS) == sorted(itertools.permutations(range(2)))
    # the numbering of the authors' plan files
    names = [order_name((1, 1, 1), order) for order in range(6)]
    assert names == ["FHW", "FWH", "HWF", "HFW", "WHF", "WFH"]


@pytest.mark.parametrize("text,side", [(0, "prefix"), (3, "prefix"), (70, "suffix")])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_permutation_walks_the_axes_from_inner_to_outer(grid, text, side) -> None:
    layout = Layout(grid, text, side)
    coordinates = list(itertools.product(*(range(n) for n in grid)))
    for number, axes in enumerate(layout.orders):
        perm = permutation(grid, number, text, side)
        first = text if side == "prefix" else 0
        wanted = sorted(range(len(coordinates)), key=lambda i: [coordinates[i][axis] for axis in axes])
        assert perm[first : first + len(coordinates)].tolist() == [first + i for i in wanted]
        # text stays in its place
        words = range(text) if side == "prefix" else range(layout.num_image, layout.num_tokens)
        assert perm[words.start : words.stop].tolist() == list(words)
        back = inverse_permutation(grid, number, text, side)
        assert torch.equal(perm[back], torch.arange(layout.num_tokens))
        assert torch.equal(layout.table()[number], perm)


def test_the_third_and_the_last_order_undo_each_other() -> None:
    grid = (4, 4, 4)
    assert torch.equal(inverse_permutation(grid, 2), permutation(grid, 5))
    for own in (0, 1, 3, 4):
        assert torch.equal(inverse_permutation(grid, own), permutation(grid, own))


@pytest.mark.parametrize("text,side", [(0, "prefix"), (7, "prefix"), (9, "suffix")])
@pytest.mark.parametrize("grid", GRIDS)
def test_attention_does_not_change(grid, text, side) -> None:
    torch.manual_seed(0)
    layout = Layout(grid, text, side)
    num_heads = len(layout.orders)  # each head in another order
    q, k, v = (torch.randn(2, num_heads, layout.num_tokens, 16) for _ in range(3))
    table = layout.table()
    moved = [reorder(x, table) for x in (q, k, v)]
    given = reorder(attention(*moved, backend="reference"), inverse(table))
    wanted = attention(q, k, v, backend="reference")
    assert (given - wanted).norm() / wanted.norm() < 1e-6
    assert not torch.equal(moved[0][:, 1:], q[:, 1:])


@pytest.mark.parametrize("grid,text,side", [((3,), 0, "prefix"), ((0, 2, 2), 0, "prefix"), ((2, 2), -1, "prefix"),
                                            ((2, 2), 1, "middle")])  # fmt: skip
def test_a_layout_that_is_none(grid, text, side) -> None:
    with pytest.raises(ValueError):
        Layout(grid, text, side)
