"""The command `viki generate`: a data set of records, in parts that stand whole or not at all; it goes on where it was.

OUT/dataset.json                  what the data set was made with
OUT/train/part-00000.parquet      records 0 to 127 of the split, in the released form
OUT/cot/VIKI_L2.json, images/     demonstrations, where asked for
OUT/results.json                  counts
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.progress import track

from ...registry import COMMANDS, UserError
from ..files import atomic_write, write_json
from .generator import SPLITS, draw_record
from .pictures import GLOBAL_SIZE, Photographer
from .records import SCHEMA_VERSION, Record, demonstration, read_records, write_records
from .thoughts import thoughts

PART_RECORDS = 128
LEVELS = {"l1": 1, "l2": 2, "l3": 3}
LEVEL_3_SPLITS = ("train", "val", "test", "heldout_scene")
LIKE_SPLITS = ("train", "val", "test")  # drawn by the rules of a held-out one


@dataclass(frozen=True)
class Settings:
    """What a data set is made with; the same settings give the same records.

    Attributes:
        schema_version: of the files.
        level: 1, 2 or 3.
        seed: of everything drawn.
        pictures: whether records have pictures.
        every_view: whether they have one of each active robot too.
        size: width and height of the pictures, pixels.
        num_records: split -> how many.
        like: held-out split by whose rules all are drawn; none if empty.
    """

    schema_version: int
    level: int
    seed: int
    pictures: bool
    every_view: bool
    size: tuple[int, int]
    num_records: dict[str, int]
    like: str = ""


@COMMANDS.register("viki generate", paper="2506.09049")
def generate(
    out: Path, level: str = "l2", num: int = 2000, num_test: int | None = None, pictures: bool = True,
    views: str = "global", size: str = "600x336", demonstrations: int = 0, like: str | None = None,
    seed: int = 0, workers: int | None = None,
) -> None:  # fmt: skip
    """Make records of a level with pictures and checked gold: training, validation, test and three held-out splits.

    Args:
        out: folder for the data; the same command goes on in it where an earlier one was stopped.
        level: l1 (which robots), l2 (a plan) or l3 (trajectories).
        num: training records.
        num_test: records of each other split; a tenth of num unless given.
        pictures: draw pictures; without, records are symbolic.
        views: global, as the released records have it, or all, with one view of each active robot.
        size: width x height of the pictures; level 3's are 256x256.
        demonstrations: so many chain-of-thought demonstrations of the training split are written too.
        like: a held-out split, such as heldout_pair, by whose rules training, validation and test are drawn then: to
            learn what other data sets keep from training.
        seed: seed of everything drawn.
        workers: processes; one a core with pictures, else one.
    """
    if level not in LEVELS:
        raise UserError(f"no level '{level}'\nlevels: {' '.join(LEVELS)}")
    if views not in ("global", "all"):
        raise UserError(f"no views '{views}'\nviews: global all")
    if num < 1 or (num_test is not None and num_test < 0) or (workers is not None and workers < 1):
        raise UserError("num and workers must be positive, num_test not negative")
    if not 0 <= demonstrations <= num:
        raise UserError(f"demonstrations: from 0 to num, {num}")
    if level == "l3" and (not pictures or demonstrations):
        raise UserError("level l3 is about its pictures: it has no symbolic records and no demonstrations that think")
    if like is not None and (level == "l3" or not like.startswith("heldout_") or like not in SPLITS):
        held_out = " ".join(name for name in SPLITS if name.startswith("heldout_"))
        raise UserError(f"like is a held-out split of level l1 or l2, not '{like}'\nheld-out splits: {held_out}")
    others = max(1, num // 10) if num_test is None else num_test
    splits = LIKE_SPLITS if like else LEVEL_3_SPLITS if level == "l3" else SPLITS
    settings = Settings(
        SCHEMA_VERSION, LEVELS[level], seed, pictures, views == "all", _size(size),
        {split: num if split == "train" else others for split in splits}, like or "",
    )  # fmt: skip
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock").acquire(timeout=0):  # a killed process's lock is free at once
            _claim(out, settings)
            parts = [part for part in _parts(settings) if not _file(out, part).exists()]
            made = _make(out, settings, parts, min(workers or (cores if pictures else 1), max(1, len(parts))))
            if demonstrations:
                write_demonstrations(out, settings.level, demonstrations)
            _report(out, settings, made, time.monotonic() - started)
    except Timeout:
        raise UserError(f"another viki generate is at work in {out}") from None


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", text)
    if match is None:
        raise UserError(f"size '{text}' is not WIDTHxHEIGHT, such as {GLOBAL_SIZE[0]}x{GLOBAL_SIZE[1]}")
    return int(match[1]), int(match[2])


def _claim(out: Path, settings: Settings) -> None:
    """Write dataset.json, or see that it says the same.

    Raises:
        UserError: if the folder holds a data set of other settings.
    """
    file = out / "dataset.json"
    wanted = json.loads(json.dumps(asdict(settings)))
    if not file.exists():
        write_json(file, wanted)
        return
    try:
        held = json.loads(file.read_text("utf-8"))
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise UserError(f"{file}: does not tell a data set's settings; take another folder with --out")
    held.setdefault("like", "")  # files of before there was the choice
    if held != wanted:
        differs = ", ".join(name for name in wanted if held.get(name) != wanted[name])
        raise UserError(f"{out} holds records made with another {differs}\nTake another folder with --out.")


Part = tuple[str, int]


def _parts(settings: Settings) -> list[Part]:
    return [(split, n) for split, count in settings.num_records.items() for n in range(-(-count // PART_RECORDS))]


def _file(out: Path, part: Part) -> Path:
    return out / part[0] / f"part-{part[1]:05d}.parquet"


def _make(out: Path, settings: Settings, parts: list[Part], workers: int) -> int:
    """Make the parts; the number of records made."""
    work = functools.partial(_make_part, out, settings)
    made = 0
    if workers == 1:
        for part in track(parts, "records", transient=True):
            made += work(part)
        return made
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for count in track(pool.map(work, parts), "records", len(parts), transient=True):
                made += count
        except BrokenProcessPool:
            raise UserError(
                "a process that draws was killed, for want of memory perhaps\n"
                "What was made stands in whole parts; the same command goes on, --workers 1 takes less memory."
            ) from None
    return made


@functools.cache
def _photographer(size: tuple[int, int], every_view: bool, like: str) -> Photographer:
    """One for the whole life of a process: compiling the scene takes seconds."""
    return Photographer(size, every_view, like)


def _make_part(out: Path, settings: Settings, part: Part) -> int:
    split, number = part
    first = number * PART_RECORDS
    indices = range(first, min(first + PART_RECORDS, settings.num_records[split]))
    write_records(_file(out, part), list(_records(settings, split, indices)))
    return len(indices)


def _records(settings: Settings, split: str, indices: range) -> Iterator[Record]:
    for index in indices:
        if settings.pictures:
            camera = _photographer(settings.size, settings.every_view, settings.like)
            yield camera.take(settings.level, split, index, settings.seed)
        else:
            yield draw_record(settings.level, split, index, settings.seed, like=settings.like)


def write_demonstrations(out: Path, level: int, count: int) -> None:
    """Write chain-of-thought demonstrations of the first training records: OUT/cot/VIKI_L2.json and its pictures."""
    rows = []
    for record in read_records(out / "train", count):
        paths = [f"images/{record.key}-{view}.jpg" for view in record.views]
        for path, image in zip(paths, record.images, strict=True):
            with atomic_write(out / "cot" / path) as partial:
                partial.write_bytes(image)
        rows.append(demonstration(record, thoughts(record), paths))
    write_json(out / "cot" / f"VIKI_L{level}.json", rows)


def _family_order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("-") if part.isdigit())


def _report(out: Path, settings: Settings, made: int, seconds: float) -> None:
    families = {split: Counter[str]() for split in settings.num_records}
    for split in settings.num_records:
        if settings.num_records[split]:
            families[split].update(record.family for record in read_records(out / split))
    names = sorted({n for c in families.values() for n in c}, key=_family_order)
    rows: list[list[Any]] = [
        [split, settings.num_records[split], *(c[n] for n in names)] for split, c in families.items()
    ]
    speed = f"{made} records in {seconds:.0f} s" if made else "all records were there already"
    content = {
        "schema_version": 1,
        "metrics": {f"records/{split}": count for split, count in settings.num_records.items()},
        "tables": [{"title": "Records by family", "columns": ["split", "records", *names], "rows": rows, "note": ""}],
        "statements": [f"Level {settings.level}, seed {settings.seed}: {speed}."],
        "figures": [],
    }
    write_json(out / "results.json", content)
    print(f"{out}: level {settings.level}, {speed}")
    for split, count in settings.num_records.items():
        print(f"  {split}: {count} records of {sum(1 for n in families[split].values() if n)} sub-families")
