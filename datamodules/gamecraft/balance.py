"""Orders over clips: each once a pass, or evenly over the directions of motion; and clips played backwards.

Players mostly walk forward. The paper balances by stratified sampling of start-to-end vectors over directions in space
and by temporal inversion (arXiv 2506.17201, section 4.1).
"""

from __future__ import annotations

import numpy

from .actions import KEYS
from .episode import Episode

_SECTOR = float(numpy.sin(numpy.pi / 8))
_INVERTED = [KEYS.index(k) for k in ("s", "w", "d", "a", "right", "left", "down", "up")]


def direction_bins(moves: numpy.ndarray, still: float = 0.05) -> numpy.ndarray:
    """The direction bin of each start-to-end translation, int64 [C].

    A bin is a sector of 45 degrees about each of the 26 directions to a cube's faces, edges and corners, or the place
    itself: bin 13 holds moves shorter than `still`, such as a turn on the spot.

    Args:
        moves: [C, 3], right, down, forward of the clip's first frame, camera units.
        still: camera units.
    """
    lengths = numpy.linalg.norm(moves, axis=1, keepdims=True)
    units = moves / numpy.maximum(lengths, 1e-9)
    signs = (numpy.sign(units) * (numpy.abs(units) > _SECTOR)).astype(int)
    signs[lengths[:, 0] < still] = 0
    return (signs + 1) @ numpy.array([9, 3, 1])


def invert_actions(actions: numpy.ndarray) -> numpy.ndarray:
    """Speed fractions [..., 8] of the same motion backwards: each key's speed on its opposite."""
    return actions[..., _INVERTED]


def invert_episode(episode: Episode) -> Episode:
    """The episode played backwards: what followed a clip becomes its history.

    Poses stay absolute in the reversed order, so each clip's re-anchoring to its first frame gives the inverted motion.
    Only sound where nothing but the camera moves (`Episode.static`).

    Raises:
        ValueError: if other things move in it.
    """
    if not episode.static:
        raise ValueError(f"episode {episode.key}: not static; backwards, doors and monsters would break physics")
    return Episode(
        episode.key,
        episode.frames[::-1],
        episode.intrinsics[::-1],
        episode.c2w[::-1],
        episode.pitch_deg[::-1],
        invert_actions(episode.actions[::-1]),
        episode.caption,
        episode.captions_long,
        {**episode.meta, "inverted": True},
    )


class PassOrder:
    """An endless order over `size` items: each pass goes through all of them, in a new order.

    Args:
        size: number of items.
        seed: the order of a pass is a function of (seed, pass) alone.
    """

    def __init__(self, size: int, seed: tuple[int, ...]) -> None:
        self.size, self._seed = size, seed
        self._orders: dict[int, numpy.ndarray] = {}

    def items(self, places: numpy.ndarray) -> numpy.ndarray:
        """Items, int64 [n], at these places (int64 [n], from 0) of the order."""
        turns, within = numpy.divmod(places, self.size)
        items = numpy.empty(len(places), numpy.int64)
        for turn in numpy.unique(turns).tolist():
            items[turns == turn] = self._order(turn)[within[turns == turn]]
        return items

    def _order(self, turn: int) -> numpy.ndarray:
        if turn not in self._orders:
            if len(self._orders) > 1:  # a batch may straddle two passes
                self._orders.pop(min(self._orders))
            rng = numpy.random.default_rng((*self._seed, turn))
            self._orders[turn] = rng.permutation(self.size).astype(numpy.int32)
        return self._orders[turn]


class BalancedOrder:
    """An endless order that takes the bins in turn, and goes through the items of each bin in passes of their own.

    Args:
        bins: int [n], the bin of each item.
        seed: as for `PassOrder`.
    """

    def __init__(self, bins: numpy.ndarray, seed: tuple[int, ...]) -> None:
        self._members = [numpy.flatnonzero(bins == b) for b in numpy.unique(bins)]
        self._orders = [PassOrder(len(m), (*seed, b)) for b, m in enumerate(self._members)]

    def items(self, places: numpy.ndarray) -> numpy.ndarray:
        """Items, int64 [n], at these places of the order."""
        rounds, bins = numpy.divmod(places, len(self._members))
        items = numpy.empty(len(places), numpy.int64)
        for b in numpy.unique(bins).tolist():
            items[bins == b] = self._members[b][self._orders[b].items(rounds[bins == b])]
        return items
