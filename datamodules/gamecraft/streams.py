"""Which clips each batch holds: exact shares of recorded and synthetic play, each clip once a pass, over any ranks."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset, get_worker_info

from ...registry import UserError
from .actions import CLIP_FRAMES
from .balance import BalancedOrder, PassOrder, direction_bins
from .clips import ClipRows, MemoryClips
from .history import HEADS, HISTORY_CLIPS, BatchSchedule
from .manifest import BrokenShard

_STREAMS = (("clip", "frame"), ("clips",))
"""Kinds of history that need equally many earlier clips share a pass over the data."""
_MAX_REPLACEMENTS = 100


class ClipStream:
    """An endless, numbered stream of (row, inverted): item n is a function of the arguments and n alone.

    Synthetic items come at exact intervals, and so do inverted ones among each kind. The rest of the order is a
    shuffle in passes (`PassOrder`), or even over directions of motion (`BalancedOrder`), for each of the four apart.

    Args:
        rows: the clips.
        synthetic: bool [R].
        num_history: clips that an item needs before it.
        synthetic_ratio: share of synthetic items.
        inversion: share of inverted items.
        balanced: even over direction bins.
        seed: seed of the orders.

    Raises:
        UserError: if a share above 0 has no clip to draw from.
    """

    def __init__(
        self,
        rows: ClipRows,
        synthetic: numpy.ndarray,
        num_history: int,
        *,
        synthetic_ratio: float = 0.0,
        inversion: float = 0.0,
        balanced: bool = False,
        seed: tuple[int, ...] = (0,),
    ) -> None:
        self._shares = [Fraction(share).limit_denominator(1000) for share in (synthetic_ratio, inversion)]
        self._items: dict[tuple[bool, bool], numpy.ndarray] = {}
        self._orders: dict[tuple[bool, bool], PassOrder | BalancedOrder] = {}
        for made, inverted in itertools.product(*(_kinds(share) for share in self._shares)):
            items = numpy.flatnonzero(rows.eligible(num_history, inverted) & (synthetic == made))
            if not len(items):
                raise UserError(_nothing(rows, made, inverted, num_history))
            order_seed = (*seed, num_history, int(made), int(inverted))
            bins = direction_bins(rows.moves[items, int(inverted)])
            self._items[made, inverted] = items
            self._orders[made, inverted] = (
                BalancedOrder(bins, order_seed) if balanced else PassOrder(len(items), order_seed)
            )

    def items(self, numbers: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Rows int64 [n] and whether inverted, bool [n], of these numbers of the stream."""
        made, places = _split(numbers, self._shares[0])
        inverted, places = _split(places, self._shares[1])
        rows = numpy.empty(len(numbers), numpy.int64)
        for (m, i), order in self._orders.items():
            mine = (made == m) & (inverted == i)
            rows[mine] = self._items[m, i][order.items(places[mine])]
        return rows, inverted


def _kinds(share: Fraction) -> tuple[bool, ...]:
    """Which of the two kinds there is any use for, when the second has this share."""
    return (share == 1,) if share in (0, 1) else (False, True)


def _split(places: numpy.ndarray, share: Fraction) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Deal places out to two kinds, the second getting `share`: which kind, and the place among its kind."""
    before = places * share.numerator // share.denominator
    second = (places + 1) * share.numerator // share.denominator > before
    return second, numpy.where(second, before, places - before)


def _nothing(rows: ClipRows, synthetic: bool, inverted: bool, num_history: int) -> str:
    kind = "synthetic" if synthetic else "recorded"
    why = f"{num_history} clips {'after' if inverted else 'before'} them" if num_history else "their bytes whole"
    folders = ", ".join(str(m.folder) for m in rows.manifests)
    return (
        f"{folders}: no {'static ' if inverted else ''}{kind} clips with {why}\n"
        "Record more or longer episodes, or set the share to 0 that asks for them:\n"
        "data.synthetic_ratio, data.inversion, or the kind in data.history"
    )


class HistoryBatches(Dataset[dict[str, Any]]):
    """Batch number -> batch of clips with their history, a function of the arguments and the number alone.

    Args:
        rows: the clips, in memory or not.
        synthetic: bool [R].
        batch_size: clips a batch.
        history: shares of `HEADS`.
        seed: seed of everything drawn.
        long_captions: share of items that come with their long caption.
        stream: keyword arguments of `ClipStream`.
    """

    def __init__(
        self,
        rows: ClipRows,
        synthetic: numpy.ndarray,
        batch_size: int,
        history: tuple[float, float, float],
        seed: int,
        long_captions: float = 0.0,
        **stream: Any,
    ) -> None:
        self.rows, self.batch_size, self._seed, self._long_captions = rows, batch_size, seed, long_captions
        self.schedule = BatchSchedule(HEADS, history, seed)
        self._streams: dict[str, tuple[tuple[str, ...], ClipStream]] = {}
        for number, heads in enumerate(_STREAMS):
            if sum(history[HEADS.index(h)] for h in heads) > 0:
                made = ClipStream(rows, synthetic, HISTORY_CLIPS[heads[0]], seed=(seed, number), **stream)
                self._streams |= dict.fromkeys(heads, (heads, made))

    def __getitem__(self, batch: int) -> dict[str, Any]:
        head = self.schedule.kind(batch)
        heads, stream = self._streams[head]
        first = self.schedule.earlier(batch, heads) * self.batch_size
        rows, inverted = stream.items(numpy.arange(first, first + self.batch_size))
        long_caption = numpy.random.default_rng((self._seed, 5, batch)).random(self.batch_size) < self._long_captions
        if isinstance(self.rows, MemoryClips):
            return {"head": head, **self._gather(rows, inverted, long_caption, head)}
        found = {"head": head, **self._read(rows, inverted, long_caption, head)}
        if get_worker_info() is not None and self.rows.broken:  # found in a loader's process: the main one must know
            found["broken_shards"] = self.rows.broken
        return found

    def _gather(
        self, rows: numpy.ndarray, inverted: numpy.ndarray, long_caption: numpy.ndarray, head: str
    ) -> dict[str, Any]:
        batch = self.rows.chunks(rows, inverted, long_caption)
        if isinstance(self.rows, MemoryClips) and self.rows.has_latents:
            batch["latents"] = self.rows.latents(rows, inverted)
            batch["history_latents"] = self.rows.latent_history(rows, inverted, head)
        else:
            batch["frames"] = self.rows.pictures(rows, inverted)
            batch["history"] = self.rows.history(rows, inverted, head)
        return batch

    def _read(
        self, rows: numpy.ndarray, inverted: numpy.ndarray, long_caption: numpy.ndarray, head: str
    ) -> dict[str, Any]:
        """From the shards, clip by clip, since any may turn out to be broken."""
        drawn = zip(rows.tolist(), inverted.tolist(), long_caption.tolist(), strict=True)
        parts = [self._read_one(row, back, long, head) for row, back, long in drawn]
        batch: dict[str, Any] = {}
        for name, first in parts[0].items():
            values = [part[name] for part in parts]
            batch[name] = torch.cat(values) if torch.is_tensor(first) else [word for words in values for word in words]
        return batch

    def _read_one(self, row: int, inverted: bool, long_caption: bool, head: str) -> dict[str, Any]:
        """One clip, or in place of a broken one the next eligible row, so that a resumed run replaces the same."""
        for attempt in range(_MAX_REPLACEMENTS):
            if attempt:
                eligible = numpy.flatnonzero(self.rows.eligible(HISTORY_CLIPS[head], inverted))
                row = int(eligible[numpy.searchsorted(eligible, row, side="right") % len(eligible)])
            try:
                return self._gather(numpy.array([row]), numpy.array([inverted]), numpy.array([long_caption]), head)
            except BrokenShard as error:
                self.rows.manifests[self.rows.folder[row]].mark_broken(error.shard, error.reason)
        raise UserError(f"{_MAX_REPLACEMENTS} clips in a row are broken, in {', '.join(self.rows.broken)}")


class FrameBatches(Dataset[dict[str, Any]]):
    """Batch number -> clips or single frames by themselves, a function of the arguments and the number alone.

    Args:
        rows: the clips, in memory.
        synthetic: bool [R].
        batch_size: clips or frames a batch.
        single_frame: share of the batches that hold single frames.
        seed: seed of everything drawn.
        synthetic_ratio: share of synthetic clips.
    """

    def __init__(
        self,
        rows: MemoryClips,
        synthetic: numpy.ndarray,
        batch_size: int,
        single_frame: float,
        seed: int,
        synthetic_ratio: float = 0.0,
    ) -> None:
        self.rows, self.batch_size, self._seed = rows, batch_size, seed
        self.schedule = BatchSchedule(("clip", "frame"), (1 - single_frame, single_frame), seed)
        self._stream = ClipStream(rows, synthetic, 0, synthetic_ratio=synthetic_ratio, seed=(seed,))

    def __getitem__(self, batch: int) -> dict[str, Any]:
        numbers = numpy.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
        rows, forwards = self._stream.items(numbers)
        times = slice(None)
        if self.schedule.kind(batch) == "frame":
            first = int(numpy.random.default_rng((self._seed, 3, batch)).integers(CLIP_FRAMES))
            times = slice(first, first + 1)
        chunks = self.rows.chunks(rows, forwards)
        return {
            "frames": self.rows.pictures(rows, forwards, times),
            "intrinsics": chunks["intrinsics"][:, times],
            "c2w": chunks["c2w"][:, times],
            "actions": chunks["actions"],
            "keys": chunks["keys"],
        }
