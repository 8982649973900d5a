"""Records by their numbers, in every process: pictures are read where they are needed and never travel."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Sequence
from typing import Any

from ....datamodules.draws import Shuffled
from ....datamodules.viki.module import VikiTrajectoryDataModule
from ....datamodules.viki.records import Record

DataSpec = dict[str, Any]


def spec_of(data: VikiTrajectoryDataModule) -> DataSpec:
    """A datamodule as plain values, for processes that make their own: {"class_path", "init_args"}."""
    made, given = type(data), {k: v for k, v in data.hparams.items() if not k.startswith("_")}  # those are the parser's
    return {"class_path": f"{made.__module__}.{made.__qualname__}", "init_args": given}


class RecordBank:
    """The records that a datamodule gives, and the order in which training draws them.

    Args:
        spec: of the datamodule.
    """

    def __init__(self, spec: DataSpec) -> None:
        module, _, name = spec["class_path"].rpartition(".")
        self.data: VikiTrajectoryDataModule = getattr(importlib.import_module(module), name)(**spec["init_args"])
        order = range(len(self.data.records("train")))
        self._drawn = Shuffled(order, spec["init_args"]["seed"])

    def numbers(self, draws: Sequence[int]) -> list[int]:
        """Numbers of the training records that come at these draws; each record comes once a pass."""
        return [int(self._drawn[draw]) for draw in draws]

    def records(self, split: str, numbers: Sequence[int]) -> list[Record]:
        """Records of a split."""
        found = self.data.records(split)
        return [found[number] for number in numbers]


def open_bank(spec: DataSpec) -> RecordBank:
    """The bank of a datamodule, made once in a process."""
    return _open(json.dumps(spec, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _open(text: str) -> RecordBank:
    return RecordBank(json.loads(text))
