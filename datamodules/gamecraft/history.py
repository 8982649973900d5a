"""What a chunk's history is made of: one clip, several clips or one frame, mixed as the paper mixes them.

Hybrid history conditioning (arXiv 2506.17201, section 4.3): 0.70 one clip, 0.05 several clips, 0.25 a single frame. A
batch holds one kind, since the kinds differ in length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from .actions import CLIP_FRAMES

HEADS = ("clip", "clips", "frame")
HISTORY_CLIPS = {"clip": 1, "clips": 2, "frame": 1}
"""Clips before the chunk that each kind needs."""
HISTORY_FRAMES = {"clip": CLIP_FRAMES, "clips": 2 * CLIP_FRAMES, "frame": 1}
HISTORY_LATENTS = {"clip": 9, "clips": 18, "frame": 1}
_LONG = 1000


class BatchSchedule:
    """Which kind each batch is of: a function of (seed, batch number) alone.

    Batches come in blocks that hold each kind in exactly its share (20 batches where the shares allow, 1,000 if not),
    in an order drawn for each block. So a short run has the shares too, and how often a kind came before is known
    without counting.

    Args:
        names: the kinds.
        shares: their shares, adding up to 1.
        seed: seed of the orders.

    Raises:
        ValueError: if the shares are negative, do not add up to 1, or are not as many as the kinds.
    """

    def __init__(self, names: Sequence[str], shares: Sequence[float], seed: int) -> None:
        if len(names) != len(shares) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"shares of {', '.join(names)} must be {len(names)} numbers >= 0 that add up to 1: {shares}"
            )
        self.names, self._seed = tuple(names), seed
        self._block = next((b for b in (1, 20) if all(abs(s * b - round(s * b)) < 1e-6 for s in shares)), _LONG)
        ends = numpy.round(numpy.cumsum(shares) * self._block).astype(int)
        self._counts = numpy.diff(ends, prepend=0)
        self._orders: dict[int, numpy.ndarray] = {}

    def _order(self, block: int) -> numpy.ndarray:
        if block not in self._orders:
            kinds = numpy.repeat(numpy.arange(len(self.names)), self._counts)
            self._orders = {block: numpy.random.default_rng((self._seed, 7, block)).permutation(kinds)}
        return self._orders[block]

    def kind(self, batch: int) -> str:
        """The kind of batch number `batch`, from 0."""
        block, place = divmod(batch, self._block)
        return self.names[int(self._order(block)[place])]

    def earlier(self, batch: int, kinds: Sequence[str]) -> int:
        """How many batches before number `batch` are of one of these kinds."""
        block, place = divmod(batch, self._block)
        codes = [self.names.index(k) for k in kinds]
        return block * int(self._counts[codes].sum()) + int(numpy.isin(self._order(block)[:place], codes).sum())
