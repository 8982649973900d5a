"""`fulgurite runs`: what is under way, live; stop a run in good order, go on with one."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ...registry import UserError
from ..records.metrics_csv import last_metrics
from ..records.progress import read_progress
from ..records.record import read_record
from ..records.redaction import HIDDEN
from ..records.tables import print_table
from .estimate import duration
from .run_folder import RunFolder, all_runs

HEADER = ("run", "stage", "progress", "speed", "left", "last metric", "where")
EVERY_S = 1.0
STOP_S = 120.0


def here() -> dict[str, Any]:
    """This process, as run.json remembers who works on a run."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "cwd": os.getcwd(), "begun": time.time()}


@dataclass(frozen=True)
class Watched:
    """A line of the table."""

    run: str
    stage: str
    progress: str
    speed: str
    left: str
    metric: str
    where: str

    def cells(self) -> tuple[str, ...]:
        """In the order of the header."""
        return (self.run, self.stage, self.progress, self.speed, self.left, self.metric, self.where)


def is_anything_under_way(root: Path) -> bool:
    """Whether a process works on a run below a root now."""
    return any(_is_under_way(run) for run in all_runs(root))


def watch(root: Path, live: bool) -> None:
    """Show the runs that are under way: until Ctrl-C, or once.

    Args:
        root: of the run folders.
        live: whether to go on.
    """
    if not live:
        rows = [w.cells() for w in watched(root)]
        if rows:
            print_table(rows, header=HEADER)
        else:
            print(f"nothing runs in {root}; fulgurite runs list   shows past runs")
        return
    with Live(_table(watched(root)), console=Console(highlight=False), auto_refresh=False) as screen:
        try:
            while True:
                screen.update(_table(watched(root)), refresh=True)
                time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return


def watched(root: Path) -> list[Watched]:
    """The runs below a root on which a process works now, oldest first."""
    return [_line(run, root) for run in all_runs(root) if _is_under_way(run)]


def _is_under_way(run: RunFolder) -> bool:
    """Whether its process is there and holds its lock; the lock is asked for last, since that is in a start's way."""
    process = run.state.get("process")
    if run.finished or not isinstance(process, dict) or not _is_there(process):
        return False
    return run.is_locked()


def _is_there(process: dict[str, Any]) -> bool:
    """False where this machine knows that the process is gone."""
    if process.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(process["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError, TypeError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_ours(process: dict[str, Any]) -> bool:
    """Whether that process began before its run said so, so that its number is not another's by now."""
    pid, begun = process.get("pid"), process.get("begun")
    if type(pid) is not int or pid < 2 or not isinstance(begun, int | float):
        return False
    try:
        return bool(psutil.Process(pid).create_time() <= begun + 1)
    except (psutil.Error, OverflowError):
        return False


def _line(run: RunFolder, root: Path) -> Watched:
    stages = list(run.state["stages"])
    name = next((n for n, s in run.state["stages"].items() if s["state"] != "done"), stages[-1])
    found, process = read_progress(run.path / name), run.state.get("process", {})
    step, total, speed = found.get("step"), found.get("total"), found.get("steps_per_s")
    begun = process.get("begun")
    progress = f"since {duration(max(0.0, time.time() - begun))}" if isinstance(begun, int | float) else ""
    if step is not None:
        progress = f"step {step}" + (f" of {total}, {100 * step / total:.0f} %" if total else "")
    metrics = last_metrics(run.path / name / "metrics.csv")
    metric = next(reversed(list(metrics)), None)
    return Watched(
        run.path.relative_to(root).as_posix(),
        f"{name} ({stages.index(name) + 1} of {len(stages)})",
        progress,
        f"{speed:.3g} steps/s" if speed else "",
        duration((total - step) / speed) if total and speed and step is not None else "",
        f"{metric} {metrics[metric]:.4g}" if metric else "",
        f"{process.get('host', '?')}:{process.get('pid', '?')}",
    )


def _table(lines: Sequence[Watched]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name in HEADER:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line.cells())
    if not lines:
        table.add_row("nothing runs now; Ctrl-C leaves")
    return table


def stop(run: RunFolder) -> None:
    """Tell a run to stop in good order (SIGTERM), and wait until it has.

    Raises:
        UserError: if nothing works on it, it runs on another machine, or it does not stop in two minutes.
    """
    process = run.state.get("process")
    if not isinstance(process, dict) or not run.is_locked():
        raise UserError(f"{run.path}: nothing works on this run\nfulgurite runs   shows what is under way")
    if process.get("host") != socket.gethostname():
        raise UserError(f"{run.path}: it runs on {process.get('host')}, process {process.get('pid')}\nStop it there.")
    if not _is_ours(process):
        raise UserError(
            f"{run.path}: the process that works on it has not said its number yet\n"
            "Try again in a few seconds, or stop it where it was started."
        )
    os.kill(process["pid"], signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while run.is_locked():
        if time.monotonic() > end:
            raise UserError(f"{run.path}: told to stop, and still at work after {STOP_S:.0f} s\nkill {process['pid']}")
        time.sleep(0.2)
    print(f"{run.path}: stopped; fulgurite runs resume {run.path.name}   goes on")


def resume(run: RunFolder) -> int:
    """Go on with a run by the command that began it, where it was begun.

    Returns:
        The command's exit status.

    Raises:
        UserError: if the run is finished, is under way, or was not begun by a command line.
    """
    if run.finished:
        raise UserError(f"{run.path}: this run is finished\nfulgurite runs show {run.path.name}")
    if run.is_locked():
        raise UserError(f"{run.path}: this run is under way\nfulgurite runs   shows how far it is")
    words = shlex.split(str(read_record(run.path).get("command") or ""))
    if words[:2] != ["fulgurite", "run"]:
        raise UserError(f"{run.path}: it was not begun by `fulgurite run`\nCall what began it again; it goes on.")
    if any(HIDDEN in word for word in words):
        raise UserError(
            f"{run.path}: its command held a secret, which is written down nowhere\nGive the command again."
        )
    words = [w for w in words[1:] if w != "--new"]
    folder = run.state.get("process", {}).get("cwd") or os.getcwd()
    if not os.path.isdir(folder):
        raise UserError(f"{run.path}: the folder it was begun in is gone: {folder}")
    print(f"fulgurite {shlex.join(words)}", file=sys.stderr)
    return subprocess.run([sys.executable, "-m", "fulgurite", *words], cwd=folder).returncode
