"""Reading metrics.csv: long form, one line per logged number."""

from __future__ import annotations

import contextlib
import csv
import itertools
from pathlib import Path

COLUMNS = ("step", "epoch", "metric", "value")


def read_metrics(file: Path) -> list[tuple[int, int, str, float]]:
    """Rows (step, epoch, metric, value) of a metrics.csv; a line that is none, such as one cut off, is left out."""
    if not file.is_file():
        return []
    rows = []
    # bytes that are no text, or a field without end, are damage: the lines that can be read count
    with file.open(newline="", encoding="utf-8", errors="replace") as lines, contextlib.suppress(csv.Error):
        for row in itertools.islice(csv.reader(lines), 1, None):
            if len(row) == len(COLUMNS) and row[3]:
                with contextlib.suppress(ValueError):
                    rows.append((int(row[0]), int(row[1]), row[2], float(row[3])))
    return rows


def last_metrics(file: Path) -> dict[str, float]:
    """The last value of each metric."""
    return {metric: value for _, _, metric, value in read_metrics(file)}
