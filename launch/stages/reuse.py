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


def files_of(folder: Path) -> list[str]:
    """The files that a stage has left in its folder, by their paths in it; without hidden ones and W&B's own."""
    found = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    return sorted(f.as_posix() for f in found if f.parts[0] != "wandb" and not any(p[0] == "." for p in f.parts))


def lost(run: RunFolder, experiment: Experiment) -> str:
    """What finished stages of a run have left and somebody has deleted since, in a clause; empty if all is there."""
    for stage in experiment.stages:
        gone = _gone(run, stage.name)
        if gone:
            further = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            return f"files of its finished stage {stage.name} are gone ({gone[0]}{further})"
    return ""


def _gone(run: RunFolder, name: str) -> list[str]:
    entry, folder = run.state["stages"].get(name, {}), run.path / name
    if entry.get("state") != "done":
        return []
    if not folder.is_dir():
        return [f"{name}/"]
    return [file for file in entry.get("files", ()) if not (folder / file).exists()]


def take_over(experiment: Experiment, run: RunFolder, earlier: Iterable[RunFolder], inputs: dict[str, str]) -> None:
    """Link the longest row of leading stages that an earlier run has finished in just the way this one asks for.

    A stage is taken only together with all before it, and only if settings (the seed, where they name it), input files
    and the code it ran with are the same, and all the files that it left are still there. So a run of another
    experiment or seed may give stages too. Files are hard-linked (copied where that fails): deleting either run leaves
    the other whole. A stage gets its name, and its state in run.json, when it is whole.

    Args:
        experiment: what is to run.
        run: the new, empty run folder, locked; its state is changed and saved.
        earlier: runs to take from, oldest first.
        inputs: stage name -> digest of its input files now.
    """
    best: tuple[int, RunFolder | None] = (0, None)
    for donor in earlier:
        count = 0
        for stage in experiment.stages:
            entry = donor.state["stages"].get(stage.name, {})
            digest = stage.digest(experiment.seed)
            wanted = {"digest": digest, "inputs": inputs[stage.name], "code": run.state["code"]}
            same = all(entry.get(key) == value for key, value in wanted.items())
            if entry.get("state") != "done" or not same or _gone(donor, stage.name):
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
