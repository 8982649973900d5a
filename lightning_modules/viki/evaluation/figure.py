"""Accuracy by sub-family, the model beside its controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ....datamodules.files import atomic_write
from ..scoring import by_family, interval
from .report import Scores

_COLOURS = ("#c2410c", "#0e7490", "#4d7c0f", "#64748b", "#a8a29e")


def draw_families(splits: Mapping[str, Scores], file: Path) -> None:
    """Draw accuracies with bootstrap intervals, a panel a split.

    Args:
        splits: as for `report`.
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(splits), 1, figsize=(11, 3.2 * len(splits)), squeeze=False, layout="constrained")
    for axis, (split, scores) in zip(axes[:, 0], splits.items(), strict=True):
        grouped = {name: by_family(found) for name, found in scores.items()}
        keys = list(next(iter(grouped.values())))
        width = 0.8 / len(grouped)
        for number, (name, found) in enumerate(grouped.items()):
            values = [[one.accuracy for one in found[key]] for key in keys]
            means = [sum(v) / len(v) for v in values]
            ends = [interval(v) for v in values]
            below = [max(0.0, m - low) for m, (low, _) in zip(means, ends, strict=True)]
            above = [max(0.0, high - m) for m, (_, high) in zip(means, ends, strict=True)]
            axis.bar(
                [k + (number + 0.5) * width - 0.4 for k in range(len(keys))], means, width, yerr=[below, above],
                color=_COLOURS[number % len(_COLOURS)], label=name, error_kw={"linewidth": 0.7},
            )  # fmt: skip
        axis.set_xticks(range(len(keys)), [f"L{level} {family}" for level, family in keys], fontsize=7, rotation=60)
        axis.set_ylim(0, 1.05)
        axis.set_title(split, fontsize=10)
        axis.set_ylabel("accuracy")
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=7, ncols=len(grouped))
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
