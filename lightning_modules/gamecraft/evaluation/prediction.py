"""One chunk ahead on held-out maps: models, the copies that they have to beat, and the autoencoder's ceiling.

Axis legend: B chunk, T frame, C channel, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..metrics.baselines import COPY_HISTORY, COPY_PREVIOUS, REPLAY_HISTORY, FrameErrors, baselines, mean_and_error
from ..metrics.perceptual import EfficientNetLite0, FeatureDistance
from ..vae import GameplayVAE
from .chunks import ChunkModel, answer, reconstruct
from .held_out import RealChunks

SPANS = ((1, 8), (1, 16), (1, 33))  # frames, counted from 1
CEILING = "autoencoder alone (the real chunk, encoded and decoded)"
FILM_CHUNKS = 4


class Row:
    """A row of the table: what was shown in place of the real chunk, and every chunk's scores.

    Attributes:
        name: for people.
        key: for metrics.
        psnr: frames (first, last) -> [B] in dB.
        ssim: likewise.
        feature_B: feature distance of the whole chunk, or None where there is no network.
    """

    def __init__(
        self, name: str, key: str, made: Tensor, real: Tensor, net: EfficientNetLite0 | None, stride: int
    ) -> None:
        self.name, self.key = name, key
        errors = FrameErrors(stride)
        device = next(net.parameters()).device if net is not None else made.device
        for a, b in zip(made.split(16), real.split(16), strict=True):
            errors.update(a.to(device), b.to(device))
        self.psnr = {span: errors.psnr_B(*span).cpu() for span in SPANS}
        self.ssim = {span: errors.ssim_B(*span).cpu() for span in SPANS}
        self.feature_B: Tensor | None = None
        if net is not None:
            metric = FeatureDistance(net, stride)
            for a, b in zip(made.split(16), real.split(16), strict=True):
                metric.update(a.to(device), b.to(device))
            self.feature_B = metric.per_clip().cpu()


def predict_chunks(
    chunks: RealChunks,
    models: Sequence[tuple[str, ChunkModel]],
    vae: GameplayVAE | None,
    mean_CHW: Tensor,
    net: EfficientNetLite0 | None,
    frame_stride: int,
    batch_size: int,
) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    """The part of results.json on one-chunk prediction, and what a film strip shows of it.

    Args:
        chunks: the real ones; poses as recorded.
        models: (key, model); the first is also asked from one frame and with other chunks' cameras.
        vae: for the ceiling; None leaves it out.
        mean_CHW: mean picture of other maps.
        net: for the feature distance; None leaves it out.
        frame_stride: frames between two that the feature distance and SSIM look at.
        batch_size: chunks generated at once.
    """
    real, request = chunks.real_NTCHW, chunks.request
    rows: list[Row] = []
    strips = [("real", real[:FILM_CHUNKS])]

    def add(name: str, key: str, made: Tensor) -> None:
        rows.append(Row(name, key, made, real, net, frame_stride))

    for place, (key, model) in enumerate(models):
        made = answer(model, request, batch_size)
        add(f"{model.name}, from a clip", key, made)
        strips.append((model.name, made[:FILM_CHUNKS]))
        if place == 0:
            add(
                f"{model.name}, from one frame", f"{key}_one_frame", answer(model, request.from_one_frame(), batch_size)
            )
            shuffled = answer(model, request.with_other_cameras(), batch_size)
            add(f"{model.name}, another chunk's actions", f"{key}_shuffled", shuffled)
    num_models = len(rows)
    rows += control_rows(chunks, vae, mean_CHW, net, frame_stride, batch_size)
    found = prediction_table(rows, chunks, frame_stride)
    if models:
        found["statements"] = _sentences(rows, num_models)
    return found, strips


def control_rows(
    chunks: RealChunks,
    vae: GameplayVAE | None,
    mean_CHW: Tensor,
    net: EfficientNetLite0 | None,
    frame_stride: int,
    batch_size: int,
) -> list[Row]:
    """The rows that need no model: copies, the mean picture, and what the autoencoder alone would reach.

    Args:
        chunks, vae, mean_CHW, net, frame_stride, batch_size: as in `predict_chunks`.
    """
    real = chunks.real_NTCHW
    shown = baselines(real, chunks.request.history_BTCHW, mean_CHW)
    keys = ("copy_history", "replay_history", "copy_previous", "mean_image")
    made = [(name, key, frames) for (name, frames), key in zip(shown.items(), keys, strict=True)]
    if vae is not None:
        made.append((CEILING, "ceiling", reconstruct(vae, real, batch_size)))
    return [Row(name, key, frames, real, net, frame_stride) for name, key, frames in made]


def prediction_table(rows: list[Row], chunks: RealChunks, stride: int) -> dict[str, Any]:
    """Metrics and the table of some rows, as parts of results.json; `stride` is told in the note."""
    count, num_maps = len(chunks.real_NTCHW), len(set(chunks.maps))
    columns = ["shown instead of the real chunk", *(f"PSNR {a}-{b}, dB" for a, b in SPANS), "± 1-33"]
    columns += ["SSIM 1-8", "SSIM 1-33", "feature distance", "±"]
    cells: list[list[Any]] = []
    metrics: dict[str, float] = {}
    for row in rows:
        psnr = {span: mean_and_error(values) for span, values in row.psnr.items()}
        ssim = {span: float(values.mean()) for span, values in row.ssim.items()}
        feature = mean_and_error(row.feature_B) if row.feature_B is not None else (None, None)
        cells.append([row.name, *(psnr[s][0] for s in SPANS), psnr[(1, 33)][1], ssim[(1, 8)], ssim[(1, 33)], *feature])
        metrics |= {f"test/{row.key}/psnr_{a}_{b}": psnr[(a, b)][0] for a, b in SPANS}
        metrics[f"test/{row.key}/ssim_1_33"] = ssim[(1, 33)]
        if feature[0] is not None:
            metrics[f"test/{row.key}/feature_distance"] = feature[0]
    note = (
        "PSNR of a chunk's mean squared error over the frames named, then the mean over chunks; ± is one standard "
        "error (bootstrap over chunks). Poses are those recorded, so where a wall stopped the player the model is "
        "told. The real frame before is no prediction. Feature distance: EfficientNet-Lite0, five layers; 0 is equal, "
        f"and it is not LPIPS. It and SSIM look at one frame in {stride}."
    )
    title = f"One chunk ahead, {count} chunks of {num_maps} held-out maps"
    return {"metrics": metrics, "tables": [{"title": title, "columns": columns, "rows": cells, "note": note}]}


def _sentences(rows: list[Row], num_models: int) -> list[str]:
    by_name = {row.name: row for row in rows}
    copies = [by_name[COPY_HISTORY], by_name[REPLAY_HISTORY]]
    said = []
    for row in rows[:num_models]:
        if row.key.endswith("_shuffled"):
            continue
        gains = []
        for span in ((1, 8), (1, 33)):
            better = max((copy.psnr[span] for copy in copies), key=lambda psnr_B: float(psnr_B.mean()))
            gain, error = mean_and_error(row.psnr[span] - better)
            gains.append(f"{gain:+.2f} ± {error:.2f} dB over frames {span[0]} to {span[1]}")
        text = f"{row.name}: {' and '.join(gains)} against the better copy of the history"
        if row.feature_B is not None:
            rivals = [
                r for r in rows[num_models:] if r.feature_B is not None and r.name not in (CEILING, COPY_PREVIOUS)
            ]
            best = min(rivals, key=lambda r: float(r.feature_B.mean()))  # type: ignore[union-attr]
            share = 1 - float(row.feature_B.mean()) / float(best.feature_B.mean())  # type: ignore[union-attr]
            than = f"{abs(share):.0%} {'lower' if share >= 0 else 'HIGHER'} than"
            text += f"; feature distance {than} the best of the history's copies and the mean image"
        said.append(f"{text}.")
    own, shuffled = rows[0], next(r for r in rows if r.key.endswith("_shuffled"))
    cost, error = mean_and_error(own.psnr[(1, 16)] - shuffled.psnr[(1, 16)])
    name = own.name.rpartition(",")[0]
    said.append(f"With another chunk's actions {name} loses {cost:.2f} ± {error:.2f} dB over frames 1 to 16.")
    return said


def luminance(clips_BTCHW: Tensor) -> Tensor:
    """Mean luminance [B] (Rec. 601 weights), 0 to 255, of clips uint8 [B, T, 3, H, W]."""
    return (clips_BTCHW.float().mean((1, 3, 4)) @ torch.tensor([0.299, 0.587, 0.114])).cpu()
