"""Axis orders of a grid of tokens (arXiv 2506.16054, section 4): per head, applied to q, k, v, undone on the output.

A video's tokens lie in the order frame, height, width. A head that looks along another axis sees its keys far apart;
laid out by that axis they lie side by side, and the attention map falls into blocks. Text stays where it is.

Axis legend: B batch, H head, N token, D channel, O order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TextSide = Literal["prefix", "suffix"]
# outer to inner axis of the new layout; the numbering is that of the authors' plans
VIDEO_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 2, 0), (1, 0, 2), (2, 1, 0), (2, 0, 1))
IMAGE_ORDERS = ((0, 1), (1, 0))
AXES = {2: "HW", 3: "FHW"}


@dataclass(frozen=True)
class Layout:
    """How tokens lie in a sequence: a grid of picture tokens, with text before or after it.

    Attributes:
        grid: tokens along (frames, height, width), or (height, width).
        text: number of text tokens.
        side: where they stand.

    Raises:
        ValueError: for a grid of another number of axes or without tokens, or a text of negative length.
    """

    grid: tuple[int, ...]
    text: int = 0
    side: TextSide = "prefix"

    def __post_init__(self) -> None:
        if len(self.grid) not in AXES or min(self.grid) < 1:
            raise ValueError(f"a grid is (frames, height, width) or (height, width) of at least 1, not {self.grid}")
        if self.text < 0 or self.side not in ("prefix", "suffix"):
            raise ValueError(f"text of {self.text} tokens as {self.side!r}: a number from 0, as 'prefix' or 'suffix'")

    @property
    def num_image(self) -> int:
        """Tokens of the grid."""
        return math.prod(self.grid)

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence."""
        return self.num_image + self.text

    @property
    def orders(self) -> tuple[tuple[int, ...], ...]:
        """The axis orders, by number."""
        return orders_of(self.grid)

    def table(self, device: torch.device | str = "cpu") -> Tensor:
        """Every order's `permutation`, int64 [O, N]."""
        made = [permutation(self.grid, order, self.text, self.side) for order in range(len(self.orders))]
        return torch.stack(made).to(device)


def orders_of(grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The axis orders of a grid, by number: six of a video, two of a picture."""
    return VIDEO_ORDERS if len(grid) == 3 else IMAGE_ORDERS


def order_name(grid: tuple[int, ...], order: int) -> str:
    """An order in letters, outer axis first, such as `HWF`."""
    return "".join(AXES[len(grid)][axis] for axis in orders_of(grid)[order])


def permutation(grid: tuple[int, ...], order: int, text: int = 0, side: TextSide = "prefix") -> Tensor:
    """Where each token of the new layout comes from: `x[permutation]` is x in that order.

    Args:
        grid: (frames, height, width) or (height, width).
        order: number of the order.
        text: text tokens, which keep their places.
        side: whether they stand before or after the grid.

    Returns:
        int64 [N].
    """
    layout = Layout(tuple(grid), text, side)
    first = text if side == "prefix" else 0
    image = torch.arange(first, first + layout.num_image).view(layout.grid)
    image = image.permute(orders_of(layout.grid)[order]).flatten()
    words = torch.arange(text) + (0 if side == "prefix" else layout.num_image)
    return torch.cat([words, image] if side == "prefix" else [image, words])


def inverse_permutation(grid: tuple[int, ...], order: int, text: int = 0, side: TextSide = "prefix") -> Tensor:
    """The way back: `x[permutation][inverse_permutation]` is x. int64 [N]."""
    return inverse(permutation(grid, order, text, side))


def inverse(permutation_N: Tensor) -> Tensor:
    """The inverse of permutations along the last axis, int64 of the same shape."""
    places = torch.arange(permutation_N.shape[-1], device=permutation_N.device)
    return torch.empty_like(permutation_N).scatter_(-1, permutation_N, places.expand_as(permutation_N))


def reorder(x_BHND: Tensor, permutation_HN: Tensor) -> Tensor:
    """Tokens of each head in its own order; with the inverse permutations, back again.

    Args:
        x_BHND: q, k, v or the output.
        permutation_HN: int64, a permutation for each head.
    """
    return x_BHND.gather(2, permutation_HN[None, :, :, None].expand_as(x_BHND))
