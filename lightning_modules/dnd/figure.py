"""The comparison as a picture: one bar per adapter, both scores side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...datamodules.files import atomic_write

HIGHLIGHT, PLAIN, CEILING = "#c2410c", "#64748b", "#15803d"


def draw_scores(rows: list[list[Any]], title: str, num_examples: int, file: Path) -> None:
    """Draw the rows of the evaluation's table (group, rows, choice, exact match, spread) as horizontal bars.

    Args:
        rows: as in results.json.
        title: of the picture.
        num_examples: test examples, for the error bars (one standard error).
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 0.36 * len(rows) + 1.1), sharey=True, layout="constrained")
    for axis, column, name in zip(axes, (2, 3), ("choice accuracy", "exact match of greedy answers"), strict=True):
        for place, row in enumerate(rows):
            value = row[column]
            if value is None:
                continue
            colour = HIGHLIGHT if row[0] == "generator" else CEILING if row[0].startswith("own") else PLAIN
            error = (value * (1 - value) / num_examples) ** 0.5
            axis.barh(
                place, value, xerr=error, color=colour, height=0.7, error_kw={"elinewidth": 0.8, "ecolor": "#333"}
            )
            axis.text(min(value + error + 0.015, 0.93), place, f"{value:.2f}", va="center", fontsize=8)
        axis.set_xlim(0, 1)
        axis.set_title(name, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=11)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    pyplot.close(figure)


def draw_recovery(rows: list[list[Any]], title: str, num_examples: list[int], file: Path) -> None:
    """Draw exact match on the training tasks: base model, the task's own LoRA, the generator on unseen prompts.

    Args:
        rows: of the table of `comparison.recovered`.
        title: of the picture.
        num_examples: test examples of each task, for its error bars (one standard error).
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(1.5 * len(rows) + 2.5, 3.2), layout="constrained")
    for place, (name, colour) in enumerate((("base", PLAIN), ("own LoRA", CEILING), ("generator", HIGHLIGHT))):
        values = [row[4 + place] for row in rows]
        errors = [(v * (1 - v) / n) ** 0.5 for v, n in zip(values, num_examples, strict=True)]
        centres = [i + (place - 1) * 0.27 for i in range(len(rows))]
        bars = axis.bar(centres, values, 0.25, yerr=errors, color=colour, label=name, error_kw={"elinewidth": 0.8})
        axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
    axis.set_xticks(range(len(rows)), [row[0] for row in rows], fontsize=9)
    axis.set_ylim(0, 1)
    axis.set_ylabel("exact match")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, ncols=3)
    axis.set_title(title, fontsize=10)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    pyplot.close(figure)
