"""Records in the released form (verl's parquet rows and LLaMA-Factory's chain-of-thought JSON), read and written.

A row: images, data_source, prompt, ability, reward_model, extra_info; see `to_row`. Records of the released benchmark
read the same way, and ours can be read by whatever reads the released ones.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...registry import UserError
from ..files import atomic_write
from .problem import Problem, ProblemError, without_nulls
from .scene_description import SceneDescription

SCHEMA_VERSION = 1
SOURCES = {"viki_1": 1, "viki_2": 2, "viki_3": 3}
ABILITIES = {1: "activation", 2: "plan", 3: "trajectory"}
IMAGE_MARK = "<image>"


class RecordError(ValueError):
    """A row that is no record; the text says what is wrong with it."""


@dataclass(frozen=True)
class Record:
    """One item of the benchmark.

    Attributes:
        level: 1 activation, 2 planning, 3 trajectories.
        system: system prompt.
        instruction: what the user asks, without image marks.
        ground_truth: level 1 a list of robot types as text; level 2 the task with its gold plan; level 3 two lists of
            five [x, y] points in pixels as text.
        images: encoded pictures, the global view first; empty for a symbolic record.
        views: names of the pictures: `global`, `R1`, ...
        split: of ours, which split it belongs to; empty for others.
        index: number in its split.
        family: sub-family, such as `10-1`; empty where unknown.
        scene: what the pictures show; None for records of others.
    """

    level: int
    system: str
    instruction: str
    ground_truth: str | Mapping[str, Any]
    images: tuple[bytes, ...] = ()
    views: tuple[str, ...] = ()
    split: str = ""
    index: int = 0
    family: str = ""
    scene: SceneDescription | None = field(default=None, compare=False)

    @functools.cached_property
    def problem(self) -> Problem:
        """The task of a level 2 record.

        Raises:
            ProblemError: if the record has none.
        """
        if not isinstance(self.ground_truth, Mapping):
            raise ProblemError(f"a record of level {self.level} has no plan to check")
        return Problem.read(self.ground_truth)

    @property
    def key(self) -> str:
        """Name of the record: split and number."""
        return f"{self.split or 'record'}-{self.index:06d}"

    def to_row(self) -> dict[str, Any]:
        """The row in verl's form."""
        source = next(name for name, level in SOURCES.items() if level == self.level)
        return {
            "images": [{"bytes": image, "path": None} for image in self.images],
            "data_source": source,
            "prompt": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": IMAGE_MARK * len(self.images) + self.instruction},
            ],
            "ability": ABILITIES[self.level],
            "reward_model": {"style": "rule", "ground_truth": self.ground_truth},
            "extra_info": {
                "schema_version": SCHEMA_VERSION, "split": self.split, "index": self.index, "family": self.family,
                "views": list(self.views), "scene": json.dumps(self.scene.to_dict()) if self.scene else None,
            },
        }  # fmt: skip

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Read a row, ours or released; null padding and NumPy arrays are taken out.

        Raises:
            RecordError: if a field is missing or has the wrong form.
        """
        values = without_nulls(row)
        try:
            level = SOURCES.get(values["data_source"])
            if level is None:
                raise RecordError(f"data_source '{values['data_source']}' is none of {', '.join(SOURCES)}")
            texts = {message["role"]: message["content"] for message in values["prompt"]}
            truth = values["reward_model"]["ground_truth"]
            if isinstance(truth, str) != (level != 2):
                raise RecordError(f"ground_truth of level {level} is a {type(truth).__name__}")
            extra = values.get("extra_info") or {}
            version = extra.get("schema_version", SCHEMA_VERSION)
            if version != SCHEMA_VERSION:
                raise RecordError(f"schema_version {version}; this program reads {SCHEMA_VERSION}")
            images = tuple(image["bytes"] for image in values.get("images", ()) if "bytes" in image)
            scene = SceneDescription.from_dict(json.loads(extra["scene"])) if extra.get("scene") else None
            return cls(
                level, texts.get("system", ""), texts["user"].replace(IMAGE_MARK, ""), truth, images,
                tuple(extra.get("views", ())), str(extra.get("split", "")), int(extra.get("index", 0)),
                extra.get("family") or _family_of(truth), scene,
            )  # fmt: skip
        except KeyError as error:
            raise RecordError(f"no field {error}") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise RecordError(str(error)) from None

    def answer(self) -> str:
        """The gold answer's text, what stands between the answer tags."""
        if isinstance(self.ground_truth, str):
            return self.ground_truth
        return json.dumps(without_nulls(self.ground_truth["time_steps"]))


def _family_of(truth: str | Mapping[str, Any]) -> str:
    return "" if isinstance(truth, str) else str(truth.get("task_id", "")).rpartition("_")[2]


def demonstration(record: Record, thoughts: str, images: Sequence[str]) -> dict[str, Any]:
    """A demonstration in LLaMA-Factory's form: {messages: [system, user, assistant], images: [path]}."""
    return {
        "messages": [
            {"role": "system", "content": record.system},
            {"role": "user", "content": IMAGE_MARK * len(images) + record.instruction},
            {"role": "assistant", "content": f"<think>\n{thoughts}\n</think>\n\n<answer>{record.answer()}</answer>"},
        ],
        "images": list(images),
    }


@dataclass(frozen=True)
class Demonstration:
    """A released demonstration: how a record is answered.

    Attributes:
        system: system prompt.
        instruction: what the user asks, without image marks.
        response: think block and answer block.
        images: paths of the pictures, relative to the file.
    """

    system: str
    instruction: str
    response: str
    images: tuple[str, ...]


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Read a chain-of-thought JSON file; `.xz` too.

    Raises:
        UserError: if it is no such file; the text names the row.
    """
    row = -1
    try:
        raw = path.read_bytes()
        text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode()
        found = []
        for row, item in enumerate(json.loads(text)):  # noqa: B007 (the error names it)
            texts = {message["role"]: message["content"] for message in item["messages"]}
            user = texts["user"].replace(IMAGE_MARK, "")
            found.append(Demonstration(texts["system"], user, texts["assistant"], tuple(item["images"])))
        return found
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of demonstrations") from None
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = f", row {row}" if row >= 0 else ""
        raise UserError(f"{path}{where}: no list of {{messages, images}}: {error}") from None


def parquet_files(path: Path) -> list[Path]:
    """The parquet files of a path: itself, or those below a folder.

    Raises:
        UserError: if there are none.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise UserError(f"{path}: no parquet file there\nfulgurite viki generate --out DIR   makes records")
    return files


def read_records(path: Path, limit: int | None = None) -> list[Record]:
    """Records of a parquet file, or of all those in a folder.

    Args:
        path: file or folder.
        limit: the first so many only.

    Raises:
        UserError: if a file can't be read or a row is no record; the text names file and row.
    """
    from pyarrow import ArrowException, parquet

    found: list[Record] = []
    for file in parquet_files(path):
        try:
            table = parquet.read_table(file)
        except (ArrowException, OSError) as error:
            raise UserError(f"{file}: can't be read as parquet: {str(error).splitlines()[0]}") from None
        for number, row in enumerate(table.slice(0, None if limit is None else limit - len(found)).to_pylist()):
            try:
                found.append(Record.from_row(row))
            except RecordError as error:
                columns = "images, data_source, prompt, ability, reward_model"
                raise UserError(f"{file}, row {number}: {error}\nA record has the columns {columns}.") from None
        if limit is not None and len(found) >= limit:
            break
    return found


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records of one level as parquet, whole or not at all; the same records give the same bytes."""
    import pyarrow
    from pyarrow import parquet

    from .columns import schema

    rows = [record.to_row() for record in records]
    level = SOURCES[rows[0]["data_source"]]
    with atomic_write(path) as partial:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema(level)), partial, compression="zstd")
