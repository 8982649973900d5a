"""Finished stages of earlier runs, taken over into a new one: a change to the last stage does not repeat the first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.experiment import Experiment

if TYPE_CHECKING:
    from .run_folder import RunFolder


def take_over(experiment: Experiment, run: RunFolder, earlier: Iterable[RunFolder], inputs: dict[str, str]) -> None:
    """Link the longest row of leading stages that an earlier run has finished in just the way this one asks for.

    A stage is taken only together with all before it, and only if settings, seed, input files and the code it ran with
    are the same. Files are hard-linked (copied where that fails): deleting either run leaves the other whole. A stage
    gets its name, and its state in run.json, when it is whole.

    Args:
        experiment: what is to run.
        run: the new, empty run folder, locked; its state is changed and saved.
        earlier: runs to take from, oldest first.
        inputs: stage name -> digest of its input files now.
    """
    best: tuple[int, RunFolder | None] = (0, None)
    for donor in earlier:
        if donor.state["seed"] != run.state["seed"]:
            continue
        count = 0
        for stage in experiment.stages:
            entry = donor.state["stages"].get(stage.name, {})
            wanted = {"digest": stage.digest(), "inputs": inputs[stage.name], "code": run.state["code"]}
            same = all(entry.get(key) == value for key, value in wanted.items())
            if entry.get("state") != "done" or not same or not (donor.path / stage.name).is_dir():
                break
            count += 1
        if count and count >= best[0]:
            best = (count, donor)
    count, source = best
    for stage in experiment.stages[:count] if source else ():
        assert source is not None
        half = run.path / f".{stage.name}.part"
        shutil.copytree(source.path / stage.name, half, copy_function=_link)
        half.rename(run.path / stage.name)
        run.state["stages"][stage.name] = {**source.state["stages"][stage.name], "reused_from": source.path.name}
        run.save()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, Path(target))
