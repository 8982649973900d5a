"""Accuracy by sub-family, at level 3 the skill, the model beside its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ....datamodules.files import atomic_write
from ..rewards import skill
from ..scoring import Score, by_family, interval
from .report import CONSTANT, Scores, errors_px

_COLOURS = ("#c2410c", "#0e7490", "#4d7c0f", "#64748b", "#a8a29e")


def draw_families(splits: Mapping[str, Scores], file: Path) -> None:
    """Draw accuracies, of level 3 the skill over the constant, with bootstrap intervals, a panel a split.

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
        width, least = 0.8 / len(grouped), 0.0
        for number, (name, found) in enumerate(grouped.items()):
            values = [_worth(found[key], grouped[CONSTANT][key]) for key in keys]
            means = [sum(v) / len(v) for v in values]
            least = min(least, *means)
            ends = [interval(v) for v in values]
            below = [max(0.0, m - low) for m, (low, _) in zip(means, ends, strict=True)]
            above = [max(0.0, high - m) for m, (_, high) in zip(means, ends, strict=True)]
            axis.bar(
                [k + (number + 0.5) * width - 0.4 for k in range(len(keys))], means, width, yerr=[below, above],
                color=_COLOURS[number % len(_COLOURS)], label=name, error_kw={"linewidth": 0.7},
            )  # fmt: skip
        axis.set_xticks(range(len(keys)), [f"L{level} {family}" for level, family in keys], fontsize=7, rotation=60)
        axis.set_ylim(max(-1.0, 1.1 * least), 1.05)
        axis.set_title(split, fontsize=10)
        axis.set_ylabel("accuracy (L3: skill)" if any(level == 3 for level, _ in keys) else "accuracy")
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=7, ncols=len(grouped))
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def _worth(scores: Sequence[Score], constant: Sequence[Score]) -> list[float]:
    """Accuracies; of level 3, which a constant answer wins by accuracy, skills whose mean is the family's.

    Where the constant is exact nobody can show any: all have 0.
    """
    if scores[0].level != 3:
        return [one.accuracy for one in scores]
    blind = errors_px(constant, constant)
    mean = sum(blind) / len(blind)
    return [skill(error, mean) if mean > 0 else 0.0 for error in errors_px(scores, constant)]
