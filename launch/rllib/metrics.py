"""metrics.csv and progress of RLlib runs, in the form that Lightning's have."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...datamodules.files import atomic_write
from ..records.metrics_csv import COLUMNS, read_metrics
from ..stages.estimate import duration

_SHOWN = 3


class MetricsLog:
    """A line for each number of each iteration; after a restore, lines of later iterations are cut, and `last` is what
    the restored iteration showed.

    Args:
        file: path of the CSV.
        iteration: the one that was restored; 0 for a fresh start.
    """

    def __init__(self, file: Path, iteration: int) -> None:
        self.file = file
        kept = [row for row in read_metrics(file) if row[0] <= iteration] if iteration else []
        self.last = {metric: value for step, _, metric, value in kept if step == iteration}
        with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([COLUMNS, *((s, e, m, repr(v)) for s, e, m, v in kept)])

    def append(self, iteration: int, values: Mapping[str, float]) -> None:
        """Write an iteration's numbers."""
        with self.file.open("a", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows((iteration, 0, name, repr(float(v))) for name, v in values.items())

    def course(self, span: int = 5) -> list[list[str | float | None]]:
        """Rows of name, mean of the first and of the last `span` values, for every metric but times."""
        found: dict[str, list[float]] = {}
        for _, _, name, value in read_metrics(self.file):
            found.setdefault(name, []).append(value)
        return [
            [name, math.fsum(v[:span]) / len(v[:span]), math.fsum(v[-span:]) / len(v[-span:])]
            for name, v in sorted(found.items())
            if not name.startswith("time/")
        ]


class IterationProgress:
    """A bar on a terminal; else a line after the first iterations, and then every `every_s` seconds.

    Args:
        done: iterations done before.
        total: iterations in all.
        every_s: seconds between two lines.
    """

    def __init__(self, done: int, total: int, every_s: float = 20.0) -> None:
        self.first, self.total, self.every_s = done, total, every_s
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=total, completed=done)
        self.begun = self.last = time.monotonic()

    def __enter__(self) -> IterationProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, iteration: int, values: Mapping[str, float]) -> None:
        """Tell where the run is, with its rewards."""
        told = {k: v for k, v in values.items() if k.endswith(("/reward", "/success"))} or dict(values)
        text = ", ".join(f"{name} {value:.4g}" for name, value in list(told.items())[:_SHOWN])
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=iteration, description=text)
        elif now - self.last >= self.every_s or iteration - self.first in (1, 5):
            self.last = now
            pace = (now - self.begun) / (iteration - self.first)
            left = duration((self.total - iteration) * pace)
            self.console.print(f"  iteration {iteration}/{self.total}, {pace:.2f} s each, {left} left, {text}")
