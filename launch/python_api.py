"""The same from Python and notebooks: `fulgurite.run("dnd/tiny")`, `fulgurite.build("hello")`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..registry import UserError
from .config.experiment import LIGHTNING_VERBS, resolve
from .config.settings import Leaf
from .lightning import Built
from .lightning import build as build_settings
from .records.record import read_record
from .stages.placeholders import expand
from .stages.runner import RunOptions, run_experiment


def run(experiment: str, *, output: str | Path = "runs", new: bool = False, **overrides: Any) -> dict[str, Any]:
    """Run an experiment, as `fulgurite run` does.

    Args:
        experiment: name or path of a YAML file.
        output: folder of the run folders.
        new: start afresh even if the same run exists.
        overrides: settings by dotted key, with dots or double underscores: `**{"trainer.max_epochs": 2}` or
            `trainer__max_epochs=2`.

    Returns:
        The run's record (as in record.json) with `run_dir` added.

    Raises:
        UserError: for an unknown experiment, key or value.
    """
    resolved = resolve(experiment, _layer(overrides))
    folder = run_experiment(resolved, RunOptions(root=Path(output), new=new, command=_call(experiment, overrides)))
    return {**read_record(folder.path), "run_dir": str(folder.path)}


def build(experiment: str, *, stage: str | None = None, folder: str | Path | None = None, **overrides: Any) -> Built:
    """Model, datamodule and trainer of an experiment's Lightning stage (the first one, unless named), not yet run.

    Args:
        experiment: name or path of a YAML file.
        stage: name of the stage.
        folder: the trainer's root folder; a temporary one by default.
        overrides: as for `run`.

    Raises:
        UserError: for an unknown experiment, stage, key or value.
    """
    resolved = resolve(experiment, _layer(overrides))
    candidates = {s.name: s for s in resolved.stages if s.verb in LIGHTNING_VERBS}
    if not candidates or (stage and stage not in candidates):
        raise UserError(
            f"{experiment} has no Lightning stage {stage or ''}\nIts stages: {', '.join(candidates) or 'commands only'}"
        )
    chosen = candidates[stage] if stage else next(iter(candidates.values()))
    root = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="fulgurite-"))
    return build_settings(expand(chosen.settings, root, resolved.seed), root)


def _call(experiment: str, overrides: dict[str, Any]) -> str:
    """The call of `run` as one would type it."""
    words = [f"{k}={v!r}" for k, v in overrides.items() if k.isidentifier()]
    dotted = {k: v for k, v in overrides.items() if not k.isidentifier()}
    return f"fulgurite.run({', '.join([repr(experiment), *words, *([f'**{dotted!r}'] if dotted else [])])})"


def _layer(overrides: dict[str, Any]) -> list[tuple[tuple[str, ...], Leaf]]:
    return [(tuple(k.replace("__", ".").split(".")), Leaf(v, f"argument {k}")) for k, v in overrides.items()]
