"""Many chunks in a row: does the picture fall apart, and does the scene come back after a full turn?

Axis legend: S start, B batch of starts, T frame, K direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy
import torch
from torch import Tensor

from ....datamodules.gamecraft.actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS, DEFAULT_LIMITS, Chord
from ....datamodules.gamecraft.camera import trajectory
from ..metrics.baselines import mean_and_error, psnr_B
from ..metrics.frechet import Directions, distance
from ..metrics.perceptual import clip_embedding
from ..motion import AXES
from ..vae import GameplayVAE
from .chunks import Cameras, ChunkModel, Request, reconstruct
from .held_out import CounterfactualSet, Start
from .judges import Judges
from .prediction import luminance

TURN_CHUNKS = 4
FULL_TURN = Chord.of(left=360 / (TURN_CHUNKS * CLIP_FRAMES * DEFAULT_LIMITS.turn_deg))


def cameras_of(starts: Sequence[Start], chords: Sequence[Sequence[Chord]]) -> list[Cameras]:
    """Cameras of chunks in a row, as the keys command them; `chords[s][c]` is held in chunk c of start s."""
    found = []
    pitches = [start.pitch_deg for start in starts]
    for number in range(len(chords[0])):
        made = [
            trajectory(chords[s][number], CLIP_FRAMES, pitch_deg=pitches[s], camera=start.camera)
            for s, start in enumerate(starts)
        ]
        pitches = [pitch for _, _, pitch in made]
        k, c2w = (torch.from_numpy(numpy.stack([m[i] for m in made])).float() for i in (0, 1))
        found.append((k, c2w))
    return found


def _request(starts: Sequence[Start], seeds: list[int]) -> Request:
    k, c2w = cameras_of(starts, [[Chord.of()]] * len(starts))[0]
    return Request(torch.stack([s.history_TCHW for s in starts]), k, c2w, [s.caption for s in starts], seeds)


def drift(
    starts: CounterfactualSet,
    model: ChunkModel,
    judges: Judges,
    real_ND: Tensor,
    num_starts: int,
    num_chunks: int,
    batch_size: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The part of results.json on drift, and curves by chunk for a plot.

    Args:
        starts: where from.
        model: asked for chunk after chunk, with an action drawn anew for each.
        judges: for the features.
        real_ND: features of real clips, which every chunk's Fréchet distance is taken to.
        num_starts: rows of chunks.
        num_chunks: chunks in a row.
        batch_size: starts at once.
        seed: of actions and noise.
    """
    rng = numpy.random.default_rng((seed, 11))
    features: list[list[Tensor]] = [[] for _ in range(num_chunks)]
    light: list[list[Tensor]] = [[] for _ in range(num_chunks)]
    before: list[Tensor] = []
    taken = list(islice(starts, num_starts))
    for first in range(0, len(taken), batch_size):
        part = taken[first : first + batch_size]
        draws = rng.integers(len(COUNTERFACTUAL_CHORDS), size=(len(part), num_chunks))
        chords = [[COUNTERFACTUAL_CHORDS[i] for i in row] for row in draws]
        seeds = [seed * 1_000_003 + 500_000 + first + i for i in range(len(part))]
        request = _request(part, seeds)
        before.append(luminance(request.history_BTCHW))
        for number, frames in enumerate(model.roll_out(request, cameras_of(part, chords))):
            features[number].append(judges.features(frames))
            light[number].append(luminance(frames))
    directions = Directions(real_ND, min(len(real_ND), len(taken)))
    real_NK = directions(real_ND)
    curves = {
        "frechet": [distance(real_NK, directions(torch.cat(f))) if len(taken) > 1 else float("nan") for f in features],
        "luminance": [float(torch.cat(x).mean()) for x in light],
    }
    start_light = float(torch.cat(before).mean())
    rows = [[n + 1, curves["frechet"][n], curves["luminance"][n]] for n in range(num_chunks)]
    second, last = min(1, num_chunks - 1), num_chunks - 1
    ratio = curves["frechet"][last] / curves["frechet"][second]
    light_ratio = curves["luminance"][last] / start_light
    text = (
        f"{model.name}, {num_chunks} chunks in a row from {len(taken)} starts: the last chunk's Fréchet distance is "
        f"{ratio:.2f} times the second's; luminance {light_ratio - 1:+.0%} against the real clip before the first."
    )
    note = f"To {len(real_ND)} real clips in {directions.dim} dimensions; real luminance before: {start_light:.1f}."
    columns = ["chunk", f"FVD-IDM (N={len(taken)})", "luminance"]
    table = {"title": "Drift over chunks in a row", "columns": columns, "rows": rows, "note": note}
    metrics = {"test/drift/frechet_ratio": ratio, "test/drift/luminance_ratio": light_ratio}
    metrics |= {f"test/drift/frechet_{n + 1}": curves["frechet"][n] for n in (second, last)}
    return {"metrics": metrics, "tables": [table], "statements": [text]}, curves


def full_turn(
    starts: CounterfactualSet,
    model: ChunkModel,
    vae: GameplayVAE | None,
    judges: Judges,
    num_starts: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """The part of results.json on a turn by 360 degrees: the last frame against the one before the turn."""
    taken = list(islice(starts, num_starts))
    shown: list[list[Tensor]] = [[] for _ in range(TURN_CHUNKS)]
    degrees = []
    for first in range(0, len(taken), batch_size):
        part = taken[first : first + batch_size]
        seeds = [seed * 1_000_003 + 700_000 + first + i for i in range(len(part))]
        cameras = cameras_of(part, [[FULL_TURN] * TURN_CHUNKS] * len(part))
        turned = torch.zeros(len(part))
        for number, frames in enumerate(model.roll_out(_request(part, seeds), cameras)):
            shown[number].append(frames[:, -1:])
            turned -= judges.idm.measure(frames)[0][..., AXES.index("turn")].mean(1) * CLIP_FRAMES
        degrees.append(turned)
    before = torch.stack([s.history_TCHW[-1:] for s in taken])
    pictures = {f"after {90 * (n + 1)} degrees": torch.cat(s) for n, s in enumerate(shown)}
    pictures["another start's picture"] = before.roll(1, 0)
    if vae is not None:
        pictures["the picture itself, through the autoencoder"] = reconstruct(vae, before, batch_size)
    rows: list[list[Any]] = []
    for name, made in pictures.items():
        feature = None
        if judges.net is not None:
            device = next(judges.net.parameters()).device
            a, b = (clip_embedding(judges.net.embed, x.to(device), 1) for x in (made, before))
            feature = float((a - b).square().sum(1).mean())
        rows.append([name, *mean_and_error(psnr_B(made, before)), feature])
    by_name = {row[0]: row for row in rows}
    back, half, other = (by_name[n] for n in ("after 360 degrees", "after 180 degrees", "another start's picture"))
    measured, error = mean_and_error(torch.cat(degrees))
    text = (
        f"{model.name}, a full turn in {TURN_CHUNKS} chunks: measured by inverse dynamics it turns by {measured:.0f} ± "
        f"{error:.0f} degrees; its last picture is at {back[1]:.1f} dB from the one before the turn ({half[1]:.1f} dB "
        f"half way, {other[1]:.1f} dB for another start's)."
    )
    metrics = {
        "test/turn/degrees": measured, "test/turn/psnr_360": back[1], "test/turn/psnr_180": half[1],
        "test/turn/psnr_other": other[1],
    }  # fmt: skip
    if back[3] is not None and half[3] is not None and half[3] > 0:
        metrics["test/turn/feature_returned"] = 1 - back[3] / half[3]
        text += (
            f" By feature distance {metrics['test/turn/feature_returned']:.0%} of what half a turn took away is back."
        )
    note = "History reaches back one chunk, so what the model saw before is gone when it comes round again."
    columns = ["picture compared with that before the turn", "PSNR, dB", "±", "feature distance"]
    table = {"title": f"A full turn from {len(taken)} starts", "columns": columns, "rows": rows, "note": note}
    return {"metrics": metrics, "tables": [table], "statements": [text]}
