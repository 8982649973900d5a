"""Answer rate against retrieved tokens, a line an arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....datamodules.files import atomic_write

HIGHLIGHT = "#c2410c"
PLAIN = ("#334155", "#0e7490", "#4d7c0f", "#7e22ce", "#a16207", "#be185d", "#64748b", "#1d4ed8", "#15803d")
MARKERS = "osD^vP*Xh"


def draw_answers(curves: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Draw the curves of `results.compare`, one panel a group of questions.

    Args:
        curves: group -> title, tokens, and for each arm its rates at these tokens.
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, max(len(curves), 1), figsize=(5.2 * max(len(curves), 1), 4.4), squeeze=False,
                                   layout="constrained")  # fmt: skip
    for axis, held in zip(axes[0], curves.values(), strict=False):
        for number, (name, rates) in enumerate(held["lines"].items()):
            own = name.startswith("ours ")
            axis.plot(
                held["tokens"], rates, label=name, color=HIGHLIGHT if own else PLAIN[number % len(PLAIN)],
                linewidth=2.6 if own else 1.2, zorder=3 if own else 2,
                marker=MARKERS[number % len(MARKERS)], markersize=5,
            )  # fmt: skip
        axis.set_xticks(held["tokens"], [f"{n:,}" for n in held["tokens"]])
        axis.set_ylim(0, 1.03)  # a line at 1 is seen whole
        axis.set_xlabel("retrieved tokens")
        axis.set_title(held["title"], fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("share of questions")
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    pyplot.close(figure)
