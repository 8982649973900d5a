"""The command `gamecraft record`: ViZDoom + Freedoom into shards, one process a core, resumable.

    DATA/train           freedoom2, all maps but three       DATA/test            freedoom1
    DATA/val             those three                         DATA/synthetic       free camera, freedoom2's training maps
    DATA/counterfactual  one start, twelve answers, freedoom1

The work is a list of units (`units.py`), each a pure function of its fields; a few make a shard. A killed or full
recording leaves whole shards only, and the same command goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import COMMANDS, UserError
from ..files import write_json
from . import broken_shards
from .actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS
from .doom import GAMES, render_size
from .filters import FILTERS
from .manifest import Manifest
from .miniworld import LAYOUTS, MiniWorldEngine
from .shard_recorder import ShardRecorder
from .units import Unit, episodes_for, plan_units
from .watched_processes import ProcessLost, WatchedProcesses

VAL_MAPS = ("map05", "map14", "map20")
TRAIN_MAPS = tuple(name for name in GAMES["freedoom2"] if name not in VAL_MAPS)
SPLITS = ("train", "val", "test", "synthetic", "counterfactual")
_PARTS = {split: split for split in SPLITS} | {"miniworld": "synthetic"}
"""Parts of a recording, and the split that each goes to: MiniWorld's rooms lie among the synthetic episodes."""
_FRAME_OVERHEAD = 320  # bytes of camera and bookkeeping a frame
_SHARD_BYTES = 48e6
_ROUNDS = 3  # a unit may find too few good starts on its map; the rest is made up elsewhere


@COMMANDS.register("gamecraft record", paper="2506.17201")
def record(
    out: Path, num_frames: int = 200_000, size: str = "64x112", workers: int | None = None, seed: int = 0,
    maps: list[str] | None = None, num_clips: int = 4, val_frames: int | None = None, test_frames: int | None = None,
    synthetic_frames: int | None = None, num_starts: int = 64, monsters: bool = False, miniworld_frames: int = 0,
) -> None:  # fmt: skip
    """Record gameplay with exact cameras from ViZDoom and Freedoom into shards; go on where an earlier call stopped.

    Args:
        out: folder for the data: train, val, test, synthetic, counterfactual and results.json.
        num_frames: training frames.
        size: height x width of the frames, such as 64x112, 128x224 or 256x448.
        workers: processes; one a core unless given.
        seed: seed of starts, keys and speeds.
        maps: freedoom2's maps to train on; all but three unless given.
        num_clips: clips of 33 frames an episode.
        val_frames: validation frames; a twentieth of num_frames unless given.
        test_frames: test frames; a tenth of num_frames unless given.
        synthetic_frames: frames of the free camera; a fifth of num_frames unless given.
        num_starts: starts of the counterfactual set, twelve answers each.
        monsters: leave the monsters in.
        miniworld_frames: frames of a second engine, MiniWorld's rooms, in the synthetic set; needs `miniworld`.
    """
    height, width = _size(size)
    render_size(height, width)
    train_maps = list(maps) if maps else list(TRAIN_MAPS)
    for name in train_maps:
        if name not in GAMES["freedoom2"]:
            raise UserError(f"freedoom2 has no map '{name}'\nmaps: {' '.join(GAMES['freedoom2'])}")
    counts = (num_frames, num_starts, val_frames or 0, test_frames or 0, synthetic_frames or 0, miniworld_frames)
    if num_clips < 1 or min(counts) < 0:
        raise UserError("counts of frames and starts must not be negative, and an episode has at least one clip")
    frames = {
        "train": num_frames,
        "val": num_frames // 20 if val_frames is None else val_frames,
        "test": num_frames // 10 if test_frames is None else test_frames,
        "synthetic": num_frames // 5 if synthetic_frames is None else synthetic_frames,
        "miniworld": miniworld_frames,
    }
    places = {
        "train": [("freedoom2", name) for name in train_maps],
        "val": [("freedoom2", name) for name in VAL_MAPS if name not in train_maps],
        "test": [("freedoom1", name) for name in GAMES["freedoom1"]],
    }
    places |= {"synthetic": places["train"], "counterfactual": places["test"]}
    places["miniworld"] = [("miniworld", layout) for layout in LAYOUTS]
    if miniworld_frames:
        MiniWorldEngine(height=height, width=width).close()  # refuses at once where there is none
    episodes = {split: episodes_for(count, num_clips) for split, count in frames.items()}
    episodes["counterfactual"] = num_starts * len(COUNTERFACTUAL_CHORDS)
    if not places["val"]:
        episodes["val"] = 0
    job = Recording(
        Path(out), height, width, episodes, places, seed=seed, num_clips=num_clips, monsters=monsters,
        workers=workers or len(os.sched_getaffinity(0)),
    )  # fmt: skip
    with job.locked():
        job.run()


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise UserError(f"size '{text}' is not HEIGHTxWIDTH, such as 64x112")
    return int(match[1]), int(match[2])


@dataclass
class Recording:
    """One call of the command.

    Attributes:
        out: folder of the data.
        height: rows of the frames.
        width: columns of the frames.
        episodes: how many episodes each split shall have.
        places: the (game, map) pairs of each split.
        seed: seed of everything.
        num_clips: clips an episode.
        monsters: whether monsters are left in.
        workers: number of processes.
        hangs: how many processes hung and were begun again, so far.
    """

    out: Path
    height: int
    width: int
    episodes: dict[str, int]
    places: dict[str, list[tuple[str, str]]]
    seed: int
    num_clips: int
    monsters: bool
    workers: int
    hangs: int = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a killed recorder's lock is free at once.

        Raises:
            UserError: if another recorder works in it.
        """
        for split in SPLITS:
            (self.out / split).mkdir(parents=True, exist_ok=True)
        with open(self.out / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another recorder is at work in {self.out}") from None
            yield

    def planned(self, part: str, num_episodes: int, first: int = 0) -> list[Unit]:
        """The part's units from number `first` on that make so many episodes."""
        kind = _PARTS[part] if _PARTS[part] in ("synthetic", "counterfactual") else "recorded"
        return plan_units(
            _PARTS[part], kind, self.places[part], num_episodes, first=first, seed=self.seed,
            num_clips=2 if kind == "counterfactual" else self.num_clips,
            monsters=self.monsters and kind != "synthetic",
        )  # fmt: skip

    def keys(self, part: str) -> set[str]:
        """Keys of the part's episodes that stand in whole shards."""
        keys = Manifest.open(self.out / _PARTS[part]).usable_keys
        return {key for key in keys if key.startswith("miniworld-") == (part == "miniworld")}

    def run(self) -> None:
        """Record what is missing or lies in broken shards, then write results.json.

        Raises:
            UserError: if the folder holds frames of another size, or the disk is too small or runs full.
        """
        for split in SPLITS:
            broken_shards.set_aside(self.out / split)
            size = Manifest.open(self.out / split).size
            if size not in ((0, 0), (self.height, self.width)):
                raise UserError(f"{self.out / split} holds frames of {size[0]}x{size[1]}\nRecord into another folder.")
        plans = {part: self.planned(part, self.episodes[part]) for part in _PARTS}
        units = []
        for part, plan in plans.items():
            keys = self.keys(part)
            if len(keys) < self.episodes[part]:
                units += [unit for unit in plan if not keys.issuperset(unit.keys())]
        self._require_room(units)
        started, num_recorded = time.monotonic(), 0
        next_index = {part: len(plan) for part, plan in plans.items()}
        for _ in range(_ROUNDS):
            num_recorded += self._record(units)
            units = []
            for part in _PARTS:
                more = self.planned(part, self.episodes[part] - len(self.keys(part)), next_index[part])
                next_index[part] += len(more)
                units += more
            if not units:
                break
        self._report(num_recorded, time.monotonic() - started)

    def _require_room(self, units: list[Unit]) -> None:
        frames = sum(unit.num_episodes * unit.num_clips * CLIP_FRAMES for unit in units)
        need = frames // CLIP_FRAMES * self._clip_bytes
        free = shutil.disk_usage(self.out).free
        print(
            f"{frames:,} frames of {self.height}x{self.width} to record: {need / 1e9:.2f} GB of the "
            f"{free / 1e9:.0f} GB free in {self.out}; {self.workers} processes",
            flush=True,
        )
        if need * 1.02 > free:
            raise UserError(
                f"recording needs {need / 1e9:.2f} GB, and the disk of {self.out} has {free / 1e9:.2f} GB free\n"
                "Lower --num-frames or --size, or record to another disk with --out."
            )

    def _batches(self, units: list[Unit]) -> list[list[Unit]]:
        """Units of one split that will make one shard: up to 48 MB, and at least four batches a worker."""
        size = {unit: unit.num_episodes * unit.num_clips * self._clip_bytes for unit in units}
        most = min(_SHARD_BYTES, sum(size.values()) / (4 * self.workers))
        batches: list[list[Unit]] = []
        filled = 0
        for unit in units:
            if not batches or filled + size[unit] > most or batches[-1][0].split != unit.split:
                batches.append([])
                filled = 0
            batches[-1].append(unit)
            filled += size[unit]
        return batches

    @property
    def _clip_bytes(self) -> int:
        return CLIP_FRAMES * (self.height * self.width * 3 + _FRAME_OVERHEAD)

    def _record(self, units: list[Unit]) -> int:
        """Record units in all processes; the number of frames recorded."""
        progress = _Progress(sum(unit.num_episodes * unit.num_clips for unit in units) * CLIP_FRAMES)
        make = functools.partial(ShardRecorder, self.out, self.height, self.width)
        processes = WatchedProcesses(make, self.workers)
        try:
            for frames in processes.record(self._batches(units)):
                progress.add(frames)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the disk of {self.out} is full\nWhat was recorded stands in whole shards; make room, and the same "
                "command goes on."
            ) from None
        except ProcessLost as lost:
            raise UserError(
                f"a recording process {lost}\nWhat was recorded stands in whole shards; the same command goes on."
            ) from None
        finally:
            self.hangs += processes.hangs
            progress.close()
        return progress.frames

    def _report(self, num_recorded: int, seconds: float) -> None:
        manifests = {split: Manifest.open(self.out / split) for split in SPLITS}
        rows: list[list[Any]] = []
        rejected = Counter[str]()
        for split, manifest in manifests.items():
            rejected.update(manifest.rejected)
            maps = len(manifest.maps)
            rows.append([split, *manifest.counts.values(), maps, sum(manifest.rejected.values())])
        speed = num_recorded / seconds if num_recorded else 0.0
        metrics: dict[str, float] = {f"frames/{row[0]}": row[3] for row in rows}
        metrics |= {"frames_per_second": round(speed, 1), "seconds": round(seconds, 1), "workers": self.workers}
        metrics |= {f"rejected/{name}": rejected.get(name, 0) for name in FILTERS}
        found = {part: len(self.keys(part)) for part in _PARTS}
        statements = [
            f"Recorded {num_recorded:,} frames of {self.height}x{self.width} in {seconds:.0f} s with {self.workers} "
            f"processes: {speed:,.0f} frames/s, {speed / self.workers:,.0f} a process."
        ]
        if self.hangs:
            statements.append(f"Processes that hung, were killed and begun again: {self.hangs}.")
        statements += [sentence for split in SPLITS for sentence in broken_shards.clear(self.out / split)]
        statements += [
            f"{part} has {found[part]} of {wanted} episodes: its maps offered too few good starts."
            for part, wanted in self.episodes.items()
            if found[part] < wanted
        ]
        write_json(
            self.out / "results.json",
            {
                "schema_version": 1,
                "metrics": metrics,
                "tables": [
                    {
                        "title": "Recorded gameplay",
                        "columns": ["split", "episodes", "clips", "frames", "maps", "rejected"],
                        "rows": rows,
                        "note": f"ViZDoom + Freedoom, seed {self.seed}, {self.num_clips} clips an episode; rejected by "
                        + (", ".join(f"{name}: {n}" for name, n in sorted(rejected.items())) or "no filter"),
                    }
                ],
                "statements": statements,
                "figures": [],
            },
        )
        print("\n".join(statements), flush=True)


class _Progress:
    """A line of frames done and frames a second: rewritten on a terminal, every ten seconds elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.frames = total, 0
        self._started = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def add(self, frames: int) -> None:
        self.frames += frames
        now = time.monotonic()
        if now - self._shown > (0.2 if self._live else 10):
            self._shown = now
            print(self._line(now), end="" if self._live else "\n", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        speed = self.frames / max(now - self._started, 1e-9)
        return f"{chr(13) if self._live else ''}{self.frames:,} of {self.total:,} frames, {speed:,.0f} a second "

    def close(self) -> None:
        if self._live and self.frames:
            print(self._line(time.monotonic()), file=sys.stderr, flush=True)
