"""The columns of the index: what the sidecars say, merged, one row an episode and one row a clip."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from ...registry import UserError
from ..files import atomic_write
from .episode import SCHEMA_VERSION

_EPISODE_COLUMNS = {  # name -> dtype, one row an episode
    "shard": "i4",
    "num_clips": "i4",
    "static": "?",
    "frames_offset": "i8",
    "camera_offset": "i8",
    "camera_bytes": "i4",
    "camera_crc": "u4",
    "json_offset": "i8",
    "json_bytes": "i4",
    "json_crc": "u4",
}
_WORD_COLUMNS = ("kind", "game", "map")  # int32 codes into `<name>_words`


@dataclass
class IndexTable:
    """The columns of the index, with the shards that they cover."""

    shards: list[str]
    shard_bytes: numpy.ndarray
    sizes: numpy.ndarray
    unit_scales: numpy.ndarray
    columns: dict[str, numpy.ndarray]
    words: dict[str, list[str]]

    @classmethod
    def load(cls, path: Path) -> IndexTable:
        """The saved index; an empty one where none can be read, since the sidecars hold everything."""
        try:
            with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as arrays:
                saved = dict(arrays)
            if int(saved.pop("schema_version")) != SCHEMA_VERSION:
                return cls.of([])
            words = {name: saved.pop(f"{name}_words").tolist() for name in _WORD_COLUMNS}
            shards = saved.pop("shards").tolist()
            return cls(shards, saved.pop("shard_bytes"), saved.pop("sizes"), saved.pop("unit_scales"), saved, words)
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
            return cls.of([])

    def save(self, path: Path) -> None:
        """Write, atomically."""
        arrays: dict[str, Any] = {f"{name}_words": numpy.array(self.words[name], dtype=str) for name in _WORD_COLUMNS}
        arrays |= {"schema_version": numpy.array(SCHEMA_VERSION), "shards": numpy.array(self.shards, dtype=str)}
        arrays |= {"shard_bytes": self.shard_bytes, "sizes": self.sizes, "unit_scales": self.unit_scales}
        arrays |= self.columns
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            numpy.savez(file, **arrays)

    @classmethod
    def of(cls, sidecars: Sequence[Mapping[str, Any]]) -> IndexTable:
        """Columns of some sidecars."""
        rows = [(s, row) for s, sidecar in enumerate(sidecars) for row in sidecar["rows"]]
        columns = {"key": numpy.array([row["key"].encode() for _, row in rows], dtype="S")}
        columns["shard"] = numpy.array([s for s, _ in rows], dtype="i4")
        for name, dtype in _EPISODE_COLUMNS.items():
            if name != "shard":
                columns[name] = numpy.array([row[name] for _, row in rows], dtype=dtype)
        words = {}
        for name in _WORD_COLUMNS:
            words[name] = sorted({row[name] for _, row in rows})
            code = {word: i for i, word in enumerate(words[name])}
            columns[name] = numpy.array([code[row[name]] for _, row in rows], dtype="i4")
        columns["clip_move"] = numpy.array([m for _, row in rows for m in row["moves"]], dtype="f4").reshape(-1, 2, 3)
        columns["clip_crc"] = numpy.array([c for _, row in rows for c in row["crcs"]], dtype="u4")
        columns["first_clip"] = numpy.cumsum(columns["num_clips"], dtype="i8") - columns["num_clips"]
        return cls(
            [s["shard"] for s in sidecars],
            numpy.array([s["bytes"] for s in sidecars], dtype="i8"),
            numpy.array([s["size"] for s in sidecars], dtype="i4").reshape(-1, 2),
            numpy.array([s["unit_scale"] for s in sidecars], dtype="f8"),
            columns,
            words,
        )

    def take(self, order: numpy.ndarray) -> IndexTable:
        """Only these shards, in this order, with their rows."""
        rank = numpy.full(len(self.shards), -1)
        rank[order] = numpy.arange(len(order))
        place = rank[self.columns["shard"]]
        rows = numpy.argsort(place, kind="stable")[int((place < 0).sum()) :]
        columns = {**self._columns_of(rows), "shard": place[rows].astype("i4")}
        shards = [self.shards[s] for s in order]
        return IndexTable(
            shards, self.shard_bytes[order], self.sizes[order], self.unit_scales[order], columns, self.words
        )

    def by_key(self) -> IndexTable:
        """With the episodes in the order of their keys."""
        keys = self.columns["key"]
        if (keys[1:] >= keys[:-1]).all():
            return self
        return replace(self, columns=self._columns_of(numpy.argsort(keys, kind="stable")))

    def _columns_of(self, rows: numpy.ndarray) -> dict[str, numpy.ndarray]:
        """Only these episodes, in this order."""
        num_clips = self.columns["num_clips"][rows]
        first = numpy.cumsum(num_clips, dtype="i8") - num_clips
        clips = numpy.repeat(self.columns["first_clip"][rows] - first, num_clips) + numpy.arange(num_clips.sum())
        columns = {n: c[clips if n.startswith("clip_") else rows] for n, c in self.columns.items()}
        return {**columns, "first_clip": first}

    def merge(self, sidecars: Sequence[Mapping[str, Any]]) -> IndexTable:
        """With the shards of these sidecars after the others."""
        if not sidecars:
            return self
        more = IndexTable.of(sidecars)
        columns, words = {}, {}
        for name, column in self.columns.items():
            added = more.columns[name]
            if name == "shard":
                added = added + numpy.int32(len(self.shards))
            elif name == "first_clip":
                added = added + self.columns["num_clips"].sum()
            elif name in _WORD_COLUMNS:
                words[name] = list(dict.fromkeys([*self.words[name], *more.words[name]]))
                recode = numpy.array([words[name].index(w) for w in more.words[name]], dtype="i4")
                added = recode[added]
            columns[name] = numpy.concatenate([column, added])
        return IndexTable(
            self.shards + more.shards,
            numpy.concatenate([self.shard_bytes, more.shard_bytes]),
            numpy.concatenate([self.sizes, more.sizes]),
            numpy.concatenate([self.unit_scales, more.unit_scales]),
            columns,
            words,
        )


def read_sidecars(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Sidecars of these shards, as far as they can be read.

    Raises:
        UserError: if one is of a layout that this version does not read.
    """
    sidecars = []
    for name in names:
        path = (folder / name).with_suffix(".json")
        try:
            sidecar = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # `Manifest.open` names the shard as broken
        if sidecar.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"{path}: layout version {sidecar.get('schema_version')}, this version reads {SCHEMA_VERSION}\n"
                "Record the data again, or use the version that wrote it."
            )
        sidecars.append(sidecar)
    return sidecars
