"""Episodes of gameplay in tar shards that `webdataset` reads, written so that a shard is whole or absent.

A folder holds `shard-<writer>-<number>.tar` with three members an episode (`<key>.frames.npy`, `<key>.camera.npz`,
`<key>.json`), and beside each shard a small `.json` sidecar that says where everything lies, with checksums. Any number
of processes write to one folder at once, each under its own writer name; `manifest.py` merges the sidecars.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy

from ..files import atomic_write
from .episode import SCHEMA_VERSION, Episode
from .manifest import Manifest

__all__ = ["Episode", "ShardWriter"]
_STALE_S = 3600.0
_BLOCK = 512  # a tar's members start at multiples of this many bytes


class ShardWriter:
    """Writes episodes into shards of one folder; a context manager.

    Args:
        folder: where the shards go; made if missing.
        shard_size_mb: a shard is closed once it is at least this large.
        name: writer name: letters and digits. Two writers at work in one folder at once need two names.
        unit_scale: camera units per unit of the engine; kept in the manifest.
    """

    def __init__(
        self, folder: str | Path, shard_size_mb: float = 256, *, name: str = "0", unit_scale: float = 1 / 150
    ) -> None:
        self.folder, self.name, self.unit_scale = Path(folder), name, unit_scale
        self._limit = int(shard_size_mb * 2**20)
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(".*.tmp"):  # of killed processes: one that had our name, or of long ago
            if stale.name.startswith(f".shard-{name}-") or _age_s(stale) > _STALE_S:
                stale.unlink(missing_ok=True)
        self._existing = Manifest.open(self.folder).usable_keys
        numbers = [int(p.stem.rpartition("-")[2]) for p in self.folder.glob(f"shard-{name}-*.tar")]
        self._number = max(numbers, default=-1) + 1
        self._rows: list[dict[str, Any]] = []
        self._size: tuple[int, int] | None = None
        self._shard: contextlib.ExitStack | None = None
        self._file: Any = None
        self._whole = 0  # the shard is good up to this byte

    def existing_keys(self) -> set[str]:
        """Keys of every whole shard of the folder, by any writer, and of what this writer wrote: not to be redone."""
        return set(self._existing)

    def write(self, episode: Episode) -> None:
        """Append an episode.

        Raises:
            ValueError: if the episode is malformed, of another size than its shard, or its key was written before.
            OSError: such as a full disk; what was written whole before is kept when the writer closes.
        """
        episode.check()
        if episode.key in self._existing:
            raise ValueError(f"{self.folder}: episode {episode.key} was written before")
        size = episode.frames.shape[1:3]
        if self._size not in (None, size):
            raise ValueError(f"episode {episode.key} is {size}, others of this writer are {self._size} (H, W)")
        self._size = size
        if self._shard is None:
            self._open()
        frames, camera, about = _npy(episode.frames), _camera(episode), _about(episode)
        row = _describe(episode)
        self._file.seek(self._whole)  # where it already is, unless the last write failed
        row["frames_offset"] = self._member(f"{episode.key}.frames.npy", frames) + len(frames) - episode.frames.nbytes
        for part, name, data in (("camera", "camera.npz", camera), ("json", "json", about)):
            row[f"{part}_offset"] = self._member(f"{episode.key}.{name}", data)
            row[f"{part}_bytes"], row[f"{part}_crc"] = len(data), zlib.crc32(data)
        self._rows.append(row)
        self._existing.add(episode.key)
        self._whole = self._file.tell()
        if self._whole >= self._limit:
            self.flush()

    def _member(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._put(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self._file.tell()
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))
        return int(offset)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # an unbuffered file may take only a part; a full disk then refuses the next write
            rest = rest[self._file.write(rest) :]

    def _open(self) -> None:
        self._shard = contextlib.ExitStack()
        path = self.folder / f"shard-{self.name}-{self._number:06d}.tar"
        # unbuffered: a full disk is met at the write that it spoils, never later
        self._file = open(self._shard.enter_context(atomic_write(path)), "wb", buffering=0)  # noqa: SIM115

    def flush(self) -> None:
        """Close the current shard: its sidecar is written, then the shard takes its name, then the manifest follows."""
        shard, self._shard = self._shard, None
        if shard is None:
            return
        stem = f"shard-{self.name}-{self._number:06d}"
        with shard:
            with self._file:
                self._file.truncate(self._whole)  # drops what a failed write left
                self._file.seek(self._whole)
                self._put(bytes(2 * _BLOCK))
                num_bytes = self._file.tell()
            if not self._rows:
                raise _NothingWritten
            sidecar = {"schema_version": SCHEMA_VERSION, "shard": stem + ".tar", "bytes": num_bytes}
            sidecar |= {"size": self._size, "unit_scale": self.unit_scale, "rows": self._rows}
            with atomic_write(self.folder / f"{stem}.json") as temporary:
                temporary.write_text(json.dumps(sidecar, default=_plain), encoding="utf-8")
        self._rows, self._whole, self._number = [], 0, self._number + 1
        Manifest.open(self.folder).save()

    def add_rejections(self, rejected: Mapping[str, int]) -> None:
        """Add to the folder's counts of what filters refused (filter -> number)."""
        Manifest.open(self.folder).add_rejections(rejected, self.name)

    def close(self) -> None:
        """Close the last shard; one without an episode leaves nothing."""
        with contextlib.suppress(_NothingWritten):
            self.flush()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # keep the whole episodes if there is room for that; the first error is the one to show
            with contextlib.suppress(OSError):
                self.close()


class _NothingWritten(Exception):
    """Unwinds an atomic write of a shard without episodes, so that its temporary file goes."""


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # its writer finished it meanwhile
        return 0.0


def _npy(array: numpy.ndarray) -> bytes:
    buffer = io.BytesIO()
    numpy.lib.format.write_array(buffer, numpy.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _camera(episode: Episode) -> bytes:
    buffer = io.BytesIO()
    numpy.savez(
        buffer,
        intrinsics=episode.intrinsics.astype(numpy.float32),
        c2w=episode.c2w.astype(numpy.float64),
        pitch_deg=episode.pitch_deg.astype(numpy.float32),
        actions=episode.actions.astype(numpy.float32),
    )
    return buffer.getvalue()


def _about(episode: Episode) -> bytes:
    about = {"schema_version": SCHEMA_VERSION, "key": episode.key, "caption": episode.caption}
    about |= {"captions_long": episode.captions_long, "meta": episode.meta}
    return json.dumps(about, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Numpy's scalars and arrays as JSON."""
    return value.tolist()


def _describe(episode: Episode) -> dict[str, Any]:
    clips = episode.frames.reshape(episode.num_clips, -1)
    return {
        "key": episode.key,
        "num_clips": episode.num_clips,
        "kind": str(episode.meta.get("kind", "recorded")),
        "game": str(episode.meta.get("game", "")),
        "map": str(episode.meta.get("map", "")),
        "static": episode.static,
        "moves": episode.clip_moves().round(5).tolist(),
        "crcs": [zlib.crc32(numpy.ascontiguousarray(clip).data) for clip in clips],
    }
