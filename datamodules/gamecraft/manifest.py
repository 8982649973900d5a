"""The index of a folder of shards: what is there, where it lies, and random access to it.

The sidecars beside the shards are the truth. `index.npz` is their merger as columns, so that a million episodes open
in seconds; `manifest.json` is the summary for people. Both are rewritten after every shard and may be deleted.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from ...registry import Notice, UserError
from ..files import write_json
from .actions import CLIP_FRAMES
from .episode import SCHEMA_VERSION, Episode
from .index import IndexTable, read_sidecars


class BrokenShard(Exception):
    """A shard whose bytes are not what was written."""

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(f"{shard}: {reason}")
        self.shard, self.reason = shard, reason


@dataclass
class Manifest:
    """What a folder of shards holds. `Manifest.open` makes it.

    Attributes:
        folder: the folder.
        episodes: columns. By episode, in the order of the keys: `key` (bytes), `shard` (row of `shards`), `num_clips`,
            `first_clip`, `static`, `kind`, `game`, `map` (codes into `words`), offsets, lengths and checksums. By clip:
            `clip_move` float32 [C, 2, 3] (start-to-end translation, played forwards and backwards:
            `Episode.clip_moves`) and `clip_crc`.
        words: what the codes stand for: {"kind": [...], "game": [...], "map": [...]}.
        shards: file names; `shard_bytes` their lengths.
        size: (H, W) of every frame, (0, 0) without an episode.
        unit_scale: camera units per unit of the engine.
        rejected: filter -> how many it refused.
        broken: shard -> what is wrong with it. Their episodes have `usable` False.
        usable: bool by episode.
    """

    folder: Path
    episodes: dict[str, numpy.ndarray]
    words: dict[str, list[str]]
    shards: list[str]
    shard_bytes: numpy.ndarray
    size: tuple[int, int]
    unit_scale: float
    rejected: dict[str, int]
    broken: dict[str, str] = field(default_factory=dict)
    usable: numpy.ndarray = field(default_factory=lambda: numpy.ones(0, bool))

    @classmethod
    def open(cls, folder: str | Path) -> Manifest:
        """Read the index, and the sidecars of shards that it does not cover yet.

        Shards that are cut short, or without a sidecar, are skipped with a warning and named in `broken`; flipped
        bytes are met by the checksums when an episode is read.

        Raises:
            UserError: if the folder does not exist, or its shards do not fit together.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of gameplay shards\nRecord one: fulgurite gamecraft record")
        lengths = {p.name: p.stat().st_size for p in sorted(folder.glob("shard-*.tar"))}
        table = IndexTable.load(folder / "index.npz")
        current = [lengths.get(s) == n for s, n in zip(table.shards, table.shard_bytes.tolist(), strict=True)]
        if not all(current):  # a shard that went, or changed: the sidecar, if there is one, knows better
            table = table.take(numpy.flatnonzero(current))
        covered = set(table.shards)
        table = table.merge(read_sidecars(folder, [name for name in lengths if name not in covered]))
        if table.shards != sorted(table.shards):
            table = table.take(numpy.argsort(table.shards))
        table = table.by_key()  # what is drawn by row must not depend on which process recorded what into which shard
        sizes = {tuple(s) for s in table.sizes.tolist()}
        if len(sizes) > 1:
            raise UserError(
                f"{folder}: shards of different frame sizes (H, W): {sorted(sizes)}\nKeep one size a folder."
            )
        manifest = cls(
            folder,
            table.columns,
            table.words,
            table.shards,
            table.shard_bytes,
            sizes.pop() if sizes else (0, 0),
            float(table.unit_scales[0]) if len(table.unit_scales) else 0.0,
            _rejections(folder),
            usable=numpy.ones(len(table.columns["key"]), bool),
        )
        for name in sorted(set(lengths) - set(table.shards)):
            manifest.mark_broken(name, "has no readable sidecar")
        for name, num_bytes in zip(table.shards, table.shard_bytes.tolist(), strict=True):
            if lengths[name] != num_bytes:
                manifest.mark_broken(name, f"has {lengths[name]} bytes instead of {num_bytes}")
        # A million sidecars are read once. Not for broken shards at every call: a run would take that for other data.
        if set(table.shards) - covered - set(manifest.broken):
            with contextlib.suppress(OSError):  # a folder that we may not write is no matter
                manifest.save()
        return manifest

    def __len__(self) -> int:
        return len(self.episodes["key"])

    @property
    def keys(self) -> list[str]:
        """Keys of all episodes, in their order."""
        return [k.decode() for k in self.episodes["key"].tolist()]

    @property
    def usable_keys(self) -> set[str]:
        """Keys of the episodes that are not in broken shards."""
        return {k.decode() for k in self.episodes["key"][self.usable].tolist()}

    @property
    def counts(self) -> dict[str, int]:
        """Usable episodes, clips and frames."""
        clips = int(self.episodes["num_clips"][self.usable].sum())
        return {"episodes": int(self.usable.sum()), "clips": clips, "frames": clips * CLIP_FRAMES}

    @property
    def kinds(self) -> dict[str, int]:
        """Usable episodes by kind."""
        return self._tally("kind")

    @property
    def games(self) -> dict[str, int]:
        """Usable episodes by game id."""
        return self._tally("game")

    @property
    def maps(self) -> dict[str, int]:
        """Usable episodes by map."""
        return self._tally("map")

    def _tally(self, column: str) -> dict[str, int]:
        numbers = numpy.bincount(self.episodes[column][self.usable], minlength=len(self.words[column]))
        return {w: n for w, n in sorted(zip(self.words[column], numbers.tolist(), strict=True)) if n}

    def of_games(self, games: Sequence[str]) -> numpy.ndarray:
        """Bool by episode: whether it is of one of these games."""
        codes = [i for i, word in enumerate(self.words["game"]) if word in set(games)]
        return numpy.isin(self.episodes["game"], codes)

    def mark_broken(self, shard: str, reason: str) -> None:
        """Leave a shard's episodes out from here on, and warn, once."""
        if shard in self.broken:
            return
        self.broken[shard] = reason
        lost = 0
        if shard in self.shards:
            rows = self.episodes["shard"] == self.shards.index(shard)
            self.usable[rows], lost = False, int(rows.sum())
        text = f"broken shard {self.folder / shard} {reason}: skipped, with {lost} episodes"
        warnings.warn(text, Notice, stacklevel=2)

    def verify(self) -> None:
        """Hold every byte against the checksums, and mark the shards broken where one differs."""

        def fault(index: int) -> BrokenShard | None:
            try:
                self.read(index)
            except BrokenShard as error:
                return error
            return None

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for error in pool.map(fault, numpy.flatnonzero(self.usable).tolist()):
                if error is not None:
                    self.mark_broken(error.shard, error.reason)

    def read(self, index: int) -> Episode:
        """One episode; `frames` is a copy-on-write memory map of the shard.

        Raises:
            BrokenShard: if its bytes do not fit their checksums.
        """
        frames = self.read_clips(index, 0, int(self.episodes["num_clips"][index]))
        about = self.read_about(index)
        return Episode(
            about["key"],
            frames,
            **self.read_camera(index),
            caption=about["caption"],
            captions_long=about["captions_long"],
            meta=about["meta"],
        )

    def read_clips(self, index: int, first: int, count: int) -> numpy.ndarray:
        """Frames of `count` clips of an episode from clip `first` on, uint8 [33 count, H, W, 3], memory-mapped.

        Raises:
            BrokenShard: if the bytes do not fit their checksums.
        """
        clip_bytes = CLIP_FRAMES * self.size[0] * self.size[1] * 3
        shard = self.shards[self.episodes["shard"][index]]
        offset = int(self.episodes["frames_offset"][index]) + first * clip_bytes
        shape = (count * CLIP_FRAMES, *self.size, 3)
        try:
            frames = numpy.memmap(self.folder / shard, numpy.uint8, "c", offset, shape)
        except (OSError, ValueError) as error:
            raise BrokenShard(shard, "is cut short or gone") from error
        row = int(self.episodes["first_clip"][index]) + first
        for clip, crc in zip(frames.reshape(count, -1), self.episodes["clip_crc"][row : row + count], strict=True):
            if zlib.crc32(clip.data) != crc:
                raise BrokenShard(shard, "has changed bytes in its frames")
        return frames

    def read_camera(self, index: int) -> dict[str, numpy.ndarray]:
        """`intrinsics`, `c2w`, `pitch_deg` and `actions` of an episode, as in `Episode`."""
        with numpy.load(io.BytesIO(self._bytes(index, "camera"))) as arrays:
            return dict(arrays)

    def read_about(self, index: int) -> dict[str, Any]:
        """`caption`, `captions_long` and `meta` of an episode."""
        about: dict[str, Any] = json.loads(self._bytes(index, "json"))
        return about

    def _bytes(self, index: int, part: str) -> bytes:
        shard = self.shards[self.episodes["shard"][index]]
        try:
            with open(self.folder / shard, "rb") as file:
                file.seek(int(self.episodes[f"{part}_offset"][index]))
                data = file.read(int(self.episodes[f"{part}_bytes"][index]))
        except OSError as error:
            raise BrokenShard(shard, "cannot be read") from error
        if zlib.crc32(data) != self.episodes[f"{part}_crc"][index]:
            raise BrokenShard(shard, f"has changed bytes in a {part} member")
        return data

    def read_all(self, indices: Sequence[int] | None = None) -> Iterator[tuple[int, Episode]]:
        """(index, episode) of each usable episode; a shard found broken is skipped from there on, with a warning."""
        for index in range(len(self)) if indices is None else indices:
            if not self.usable[index]:
                continue
            try:
                episode = self.read(index)
            except BrokenShard as error:
                self.mark_broken(error.shard, error.reason)
                continue
            yield index, episode

    def add_rejections(self, rejected: Mapping[str, int], name: str = "0") -> None:
        """Add to the counts of what filters refused, in a file of each writer's own, and save."""
        path = self.folder / f"rejected-{name}.json"
        counts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for reason, number in rejected.items():
            counts[reason] = counts.get(reason, 0) + int(number)
        write_json(path, counts)
        self.rejected = _rejections(self.folder)
        self.save()

    def save(self) -> None:
        """Write manifest.json and index.npz."""
        table = IndexTable(
            self.shards,
            self.shard_bytes,
            numpy.tile(numpy.array([self.size]), (len(self.shards), 1)),
            numpy.full(len(self.shards), self.unit_scale),
            self.episodes,
            self.words,
        )
        table.save(self.folder / "index.npz")
        write_json(self.folder / "manifest.json", self.summary())

    def summary(self) -> dict[str, Any]:
        """What manifest.json says."""
        return {
            "schema_version": SCHEMA_VERSION,
            "counts": self.counts,
            "size": list(self.size),
            "unit_scale": self.unit_scale,
            "kinds": self.kinds,
            "games": self.games,
            "maps": self.maps,
            "rejected": self.rejected,
            "shards": self.shards,
            "broken": self.broken,
        }


def _rejections(folder: Path) -> dict[str, int]:
    total: dict[str, int] = {}
    for path in sorted(folder.glob("rejected-*.json")):
        for reason, number in json.loads(path.read_text(encoding="utf-8")).items():
            total[reason] = total.get(reason, 0) + number
    return total
