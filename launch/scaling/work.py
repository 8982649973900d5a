"""What is scaled: training steps of the experiments, as `fulgurite plan` knows them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...lightning_modules.planned import PLANNERS, Planned
from ...registry import read_index
from ..config.experiment import parse_flags, resolve
from ..plan.plan import stage_arguments


@dataclass(frozen=True)
class Work:
    """A training step.

    Attributes:
        title: for the table.
        experiment: whose stage it is.
        stage: name of the stage.
        flags: settings over the experiment's.
        sharded: whether weights are divided (FSDP2), or every GPU holds all (DDP).
        size: height x width of the pictures, where the experiment's own would not do.
    """

    title: str
    experiment: str
    stage: str
    flags: tuple[str, ...] = ()
    sharded: bool = False
    size: str = ""

    def planner(self) -> Callable[[], Planned]:
        """What makes the step on torch's default device: random weights, made-up inputs, nothing left to import."""
        resolved = resolve(self.experiment, parse_flags(list(self.flags)))
        stage = next(s for s in resolved.stages if s.name == self.stage)
        path = str(stage.settings.get("model", "class_path"))
        name = next(n for n, entry in read_index().of("models").items() if entry.path == path)
        model, data = (stage_arguments(stage, part) for part in ("model", "data"))
        others: dict[str, Any] = {s.name: s.settings.to_dict() for s in resolved.stages}
        others |= {"record": {"size": self.size}} if self.size else {}
        return functools.partial(PLANNERS[name], model, data, stage.settings.get("trainer") or {}, others)


WORK = {
    "gamecraft": Work("GameCraft, 12 million parameters, DDP", "gamecraft/gpu", "teacher"),
    "large": Work(
        "GameCraft, 13 billion parameters, FSDP2", "gamecraft/paper", "teacher", ("--teacher.model.text", "null",
        "--teacher.model.vae", "null"), True, "352x640",
    ),
    "dnd": Work("DnD's cascade for 0.5B, DDP", "dnd/paper", "generator", ("--generator.data.batch_size", "4")),
}  # fmt: skip
