"""What a run will take, said before it starts: minutes, memory, disk; from earlier runs or the experiment's file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from ...registry import UserError
from ..config.experiment import Experiment
from .run_folder import RunFolder, all_runs


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {seconds % 60:02.0f} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def took(stages: Iterable[dict[str, Any]]) -> str:
    """The time of a record's stages; that of stages taken over from an earlier run is said apart."""
    listed = list(stages)
    taken = [s["seconds"] for s in listed if s.get("reused_from")]
    own = duration(sum(s["seconds"] for s in listed if not s.get("reused_from")))
    return own + (f" (and {duration(sum(taken))} in stages taken over from an earlier run)" if taken else "")


def memory_gb() -> float | None:
    """The machine's memory in GB, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def announce(experiment: Experiment, run: RunFolder, console: Console) -> None:
    """Say what is ahead, and refuse a run that can't fit the disk.

    Raises:
        UserError: if the experiment says it needs more disk than is free.
    """
    if run.finished:
        return
    estimate = experiment.meta.get("estimate") or {}
    home = run.path.parent
    whole = [r.state["stages"] for r in all_runs(home) if r.finished]
    alike = [s for s in whole if [*s] == [t.name for t in experiment.stages]]
    before = [
        sum(s["seconds"] for s in stages.values())
        for stages in alike
        if not any(s.get("reused_from") for s in stages.values())
    ]
    said = []
    if before:
        said.append(f"about {duration(before[-1])} (as the last run here)")
    elif "minutes" in estimate:
        said.append(f"about {duration(60 * estimate['minutes'])} on 2 CPU cores, downloads apart")
    if "memory_gb" in estimate:
        said.append(f"{estimate['memory_gb']} GB of memory")
        have = memory_gb()
        if have and have < estimate["memory_gb"]:
            console.print(f"[yellow]This machine has {have:.1f} GB of memory, less than the run needs.[/yellow]")
    if "disk_gb" in estimate:
        said.append(f"{estimate['disk_gb']} GB of disk")
        free = shutil.disk_usage(run.path).free / 1e9
        if free < estimate["disk_gb"]:
            raise UserError(
                f"{run.path}: {free:.2f} GB free, the run needs {estimate['disk_gb']} GB\n"
                "Free some space, or choose another disk with --output FOLDER."
            )
    if said:
        console.print("[dim]takes " + ", ".join(said) + "[/dim]")
