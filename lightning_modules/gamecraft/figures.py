"""Pictures of the evaluation: film strips, confusion matrices, drift and speed response.

Axis legend: B chunk, A action, T frame, C channel, H height, W width, S start, V speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...datamodules.files import atomic_write

FILM_FRAMES = (0, 4, 8, 16, 24, 32)
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


@contextmanager
def _figure(file: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes [rows, columns] of a figure that is written to `file` at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    try:
        yield axes
        with atomic_write(file) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    finally:
        pyplot.close(figure)


def draw_film(strips: Sequence[tuple[str, Tensor]], before_BCHW: Tensor, file: Path) -> None:
    """Real chunks above generated ones: the frame before, then frames over the chunk.

    Args:
        strips: (name, chunks uint8 [B, 33, 3, H, W]), the real ones first.
        before_BCHW: uint8, the last frame of the history.
        file: PNG to write.
    """
    rows = [
        (name, [before_BCHW[b], *(clips_BTCHW[b, t] for t in FILM_FRAMES)])
        for b in range(len(before_BCHW))
        for name, clips_BTCHW in strips
    ]
    titles = ["before", *(f"frame {t + 1}" for t in FILM_FRAMES)]
    _draw_grid(rows, titles, len(strips), file)


def draw_answers(example: Mapping[str, Tensor], actions: Sequence[str], file: Path) -> None:
    """The last frame of all actions' answers from one start: real ones above each model's.

    Args:
        example: name -> answers uint8 [A, 33, 3, H, W].
        actions: their names.
        file: PNG to write.
    """
    _draw_grid([(name, list(clips[:, -1])) for name, clips in example.items()], actions, len(example), file)


def _draw_grid(rows: Sequence[tuple[str, list[Tensor]]], titles: Sequence[str], group: int, file: Path) -> None:
    """Named rows of pictures uint8 [3, H, W] under titles, with a wider gap after every `group` rows."""
    height, width = rows[0][1][0].shape[-2:]
    gap = max(2, height // 32)
    tops = [i * (height + gap) + (i // group) * 3 * gap for i in range(len(rows))]
    sheet = torch.full((tops[-1] + height, len(titles) * (width + gap) - gap, 3), 255, dtype=torch.uint8)
    for top, (_, pictures) in zip(tops, rows, strict=True):
        for i, picture in enumerate(pictures):
            left = i * (width + gap)
            sheet[top : top + height, left : left + width] = picture.permute(1, 2, 0)
    wide = 1.3 * len(titles)
    with _figure(file, 1, 1, (wide + 1.6, wide * sheet.shape[0] / sheet.shape[1] + 0.5)) as axes:
        axis = axes[0][0]
        axis.imshow(sheet.numpy(), interpolation="nearest")
        axis.set_xticks([i * (width + gap) + width / 2 for i in range(len(titles))], titles, fontsize=7)
        axis.set_yticks([top + height / 2 for top in tops], [name.replace(", ", "\n") for name, _ in rows], fontsize=7)
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        for spine in axis.spines.values():
            spine.set_visible(False)


def draw_confusion(matrices: Mapping[str, Tensor], actions: Sequence[str], file: Path) -> None:
    """Confusion matrices side by side: rows the action commanded, columns the real answer that lies nearest.

    Args:
        matrices: title -> shares [A, A].
        actions: names of the actions.
        file: PNG to write.
    """
    with _figure(file, 1, len(matrices), (4.2 * len(matrices), 4.4)) as axes:
        for axis, (title, matrix_AA) in zip(axes[0], matrices.items(), strict=True):
            axis.imshow(matrix_AA.numpy(), vmin=0, vmax=1, cmap="Blues")
            for i, row in enumerate(matrix_AA.tolist()):
                for j, share in enumerate(row):
                    if share >= 0.05:
                        colour = "white" if share > 0.6 else "black"
                        axis.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color=colour)
            axis.set_xticks(range(len(actions)), actions, rotation=90, fontsize=7)
            axis.set_yticks(range(len(actions)), actions, fontsize=7)
            axis.set_title(title, fontsize=8)
            axis.set_xlabel("nearest real answer (%)", fontsize=7)
        axes[0][0].set_ylabel("commanded", fontsize=8)


def draw_drift(curves: Mapping[str, Mapping[str, Sequence[float]]], file: Path) -> None:
    """Fréchet distance and luminance over chunks in a row.

    Args:
        curves: model -> {"frechet", "luminance"} -> one value a chunk.
        file: PNG to write.
    """
    with _figure(file, 1, 2, (9, 3.2)) as axes:
        titles = (("frechet", "FVD-IDM to real clips"), ("luminance", "mean luminance, 0 to 255"))
        for axis, (key, title) in zip(axes[0], titles, strict=True):
            for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
                axis.plot(range(1, len(curve[key]) + 1), curve[key], marker="o", ms=3, color=colour, label=name)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("chunk", fontsize=8)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0][0].legend(fontsize=7)


def draw_response(flows: Mapping[str, Tensor], speeds: Sequence[float], file: Path) -> None:
    """Measured flow over commanded speed: one line a key, with the standard deviation over starts.

    Args:
        flows: key -> flow [S, V] in pixels a frame.
        speeds: the V commanded ones.
        file: PNG to write.
    """
    with _figure(file, 1, 1, (4.8, 3.4)) as axes:
        for (key, flow_SV), colour in zip(flows.items(), COLOURS, strict=False):
            spread = flow_SV.std(0) if len(flow_SV) > 1 else torch.zeros(len(speeds))
            axes[0][0].errorbar(
                speeds, flow_SV.mean(0), yerr=spread, color=colour, label=key, capsize=2, marker="o", ms=3
            )
        axes[0][0].set_xlabel("commanded speed, fraction of full", fontsize=8)
        axes[0][0].set_ylabel("measured flow, px/frame", fontsize=8)
        axes[0][0].set_ylim(bottom=0)
        axes[0][0].grid(alpha=0.3)
        axes[0][0].legend(fontsize=8)
