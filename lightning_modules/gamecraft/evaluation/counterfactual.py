"""Twelve actions from each start, for every model: control, Fréchet distance, dynamics and speed, beside the real ones.

Axis legend: S start, A action, N clip, D feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ....datamodules.gamecraft.actions import COUNTERFACTUAL_CHORDS
from ..metrics.baselines import mean_and_error
from ..metrics.frechet import Directions, corruption_ladder, distance, is_monotone
from ..vae import GameplayVAE
from .chunks import ChunkModel, Request, answer, reconstruct
from .held_out import CounterfactualSet
from .judges import Judges, Truth, Verdict

NUM_ACTIONS = len(COUNTERFACTUAL_CHORDS)
REAL, CEILING, STILL = "real answers", "autoencoder alone", "copy the last history frame"
_LADDER_CLIPS = 256


@dataclass(frozen=True)
class Judged:
    """All answers, judged.

    Attributes:
        verdicts: key -> verdict; `real` is the recorded answers'.
        real_clips: some real clips uint8 [N, 33, 3, H, W], for the ladder of corruptions.
        example: name -> the answers of the first start, uint8 [A, 33, 3, H, W], for a picture.
    """

    verdicts: dict[str, Verdict]
    real_clips: Tensor
    example: dict[str, Tensor]


def judge_answers(
    starts: CounterfactualSet,
    models: Sequence[tuple[str, ChunkModel]],
    vae: GameplayVAE | None,
    judges: Judges,
    num_starts: int,
    batch_size: int,
    seed: int,
) -> Judged:
    """Ask every model for every action from every start, and judge; the real answers stand first."""
    stride = judges.flow_stride
    verdicts = {"real": Verdict(REAL, "real", stride), "still": Verdict(STILL, "still", stride)}
    if vae is not None:
        verdicts["ceiling"] = Verdict(CEILING, "ceiling", stride)
    verdicts |= {key: Verdict(model.name, key, stride) for key, model in models}
    kept: list[Tensor] = []
    example: dict[str, Tensor] = {}
    numbered = enumerate(islice(starts, num_starts))
    # as many starts at once as fill a batch
    while group := list(islice(numbered, max(1, batch_size // NUM_ACTIONS))):
        truths = [Truth.of(start, judges) for _, start in group]
        for truth in truths:
            real_ATCHW = truth.start.answers_ATCHW
            verdicts["real"].add(real_ATCHW, truth, judges)
            verdicts["still"].add(truth.start.history_TCHW[-1:].expand_as(real_ATCHW), truth, judges)
            if vae is not None:
                verdicts["ceiling"].add(reconstruct(vae, real_ATCHW, batch_size), truth, judges)
            if len(kept) * NUM_ACTIONS < _LADDER_CLIPS:
                kept.append(real_ATCHW)
        chords = list(COUNTERFACTUAL_CHORDS)
        request = Request.joined([start.request(chords, seed * 1_000_003 + number) for number, start in group])
        for key, model in models:
            made = answer(model, request, batch_size).split(NUM_ACTIONS)
            for answers_ATCHW, truth in zip(made, truths, strict=True):
                verdicts[key].add(answers_ATCHW, truth, judges)
            example.setdefault(model.name, made[0])
        example.setdefault(REAL, truths[0].start.answers_ATCHW)
    return Judged(verdicts, torch.cat(kept), example)


def compare_answers(judged: Judged, models: Sequence[tuple[str, ChunkModel]], judges: Judges) -> dict[str, Any]:
    """The part of results.json on control."""
    verdicts, ladder_clips = judged.verdicts, judged.real_clips
    real_ND = verdicts["real"].features_ND
    directions = Directions(real_ND, len(real_ND))
    real_NK = directions(real_ND)
    frechet = {key: distance(real_NK, directions(v.features_ND)) for key, v in verdicts.items() if key != "real"}
    first_N = (torch.arange(len(real_NK)) // NUM_ACTIONS) % 2 == 0
    halves = Directions(real_ND, int(min(first_N.sum(), (~first_N).sum())))
    floor = distance(halves(real_ND[first_N]), halves(real_ND[~first_N])) if (~first_N).any() else None
    seconds = {key: model.seconds / model.num_chunks for key, model in models if model.num_chunks}
    rows: list[list[Any]] = []
    metrics: dict[str, float] = {}
    for key, verdict in verdicts.items():
        s = verdict.scalars()
        cells: list[Any] = [verdict.name]
        for name in ("accuracy_feature", "accuracy_motion"):
            cells += list(mean_and_error(s[name])) if name in s else [None, None]
        cells += [frechet.get(key)]
        names = ("dynamics", "consistency", "seam", "trans_error", "rot_error", "psnr", "luminance")
        cells += [float(s[name].mean()) for name in names]
        cells += [seconds.get(key)]
        rows.append(cells)
        metrics |= {f"test/{key}/{name}": float(values.mean()) for name, values in s.items()}
        if key in frechet:
            metrics[f"test/{key}/frechet"] = frechet[key]
        if key in seconds:
            metrics[f"test/{key}/seconds_per_chunk"] = seconds[key]
    columns = [
        "answers of", "right, by features", "±", "right, by motion", "±",
        f"FVD-IDM (N={len(real_ND)}, {directions.dim}-d)",
        "dynamics, px/frame", "consistency", "at the seam", "translation error, units/frame",
        "rotation error, deg/frame", "PSNR, dB", "luminance", "seconds a chunk",
    ]  # fmt: skip
    num_starts = len(real_ND) // NUM_ACTIONS
    note = (
        f"Chance is {1 / NUM_ACTIONS:.1%}. By features: nearest real answer by EfficientNet-Lite0 distance; by motion: "
        "nearest true motion of the real answers, measured by the inverse-dynamics network, whose own accuracy on "
        "real answers is its ceiling. Models get the poses that the keys command, as in play; the errors are against "
        "these, so walls count against the real answers too. Consistency is 1 - flow-warp error / 255. FVD-IDM is "
        "against the real answers of the same starts, along principal directions in units of their spread; two halves "
        f"of the starts, real against real, are at {'–' if floor is None else f'{floor:.3g}'} in {halves.dim} "
        "dimensions. ± is one standard error over starts. Seconds a chunk: sampling and decoding, for students and "
        "teachers alike by plain PyTorch with a fused decoder (on a GPU); as in play, the history is latents already."
    )
    title = f"Counterfactuals: {num_starts} held-out starts, {NUM_ACTIONS} actions each"
    table = {"title": title, "columns": columns, "rows": rows, "note": note}
    if floor is not None:
        metrics["test/real/frechet_halves"] = floor
    ladder = corruption_ladder(
        ladder_clips, judges.features, Directions(judges.features(ladder_clips), len(ladder_clips))
    )
    monotone = is_monotone(ladder)
    metrics["test/ladder_monotone"] = float(monotone)
    steps = [[kind, level, found] for kind, levels in ladder.items() for level, found in levels]
    ladder_table = {
        "title": f"FVD-IDM of {len(ladder_clips)} real clips to themselves, corrupted",
        "columns": ["corruption", "level", "distance"],
        "rows": steps,
        "note": "Noise: standard deviation in grey levels. Shuffle, freeze: share of the frames.",
    }
    said = [_ladder_sentence(monotone), *_sentences(verdicts, models)]
    return {"metrics": metrics, "tables": [table, ladder_table], "statements": said}


def _ladder_sentence(monotone: bool) -> str:
    verb = "rises" if monotone else "does NOT always rise"
    return f"The Fréchet distance {verb} with every step of noise, shuffled and frozen frames."


def _sentences(verdicts: dict[str, Verdict], models: Sequence[tuple[str, ChunkModel]]) -> list[str]:
    said = []
    real = verdicts["real"].scalars()
    for key, model in models:
        s = verdicts[key].scalars()
        parts = []
        for name, judge in (("accuracy_feature", "feature distance"), ("accuracy_motion", "inverse dynamics")):
            if name in s:
                mean, error = mean_and_error(s[name])
                parts.append(f"{mean:.1%} ± {error:.1%} by {judge} (real answers {float(real[name].mean()):.1%})")
        moving = float(s["dynamics"].mean() / real["dynamics"].mean().clamp_min(1e-9))
        said.append(
            f"{model.name}: of {NUM_ACTIONS} actions the commanded one is recognised in {' and '.join(parts)}; chance "
            f"is {1 / NUM_ACTIONS:.1%}; dynamics {moving:.0%} of the real."
        )
    return said


def compare_distillation(
    metrics: dict[str, float], full: str, few: str, student: str, names: dict[str, str]
) -> list[str]:
    """Sentences on a student beside its teacher at full and at equal steps.

    Args:
        metrics: as `compare_answers` gives them.
        full: key of the teacher at its full steps.
        few: key of the teacher at the student's steps.
        student: key of the student.
        names: key -> name for people.
    """
    judge = "accuracy_feature" if f"test/{student}/accuracy_feature" in metrics else "accuracy_motion"

    def of(key: str, name: str) -> float:
        return metrics[f"test/{key}/{name}"]

    better = [
        of(student, "frechet") < of(few, "frechet"),
        of(student, judge) > of(few, judge),
    ]
    verdict = ("better on both", "better on one, worse on the other", "better on neither")[2 - sum(better)]
    text = (
        f"{names[student]} beside {names[few]}: {verdict} of Fréchet distance ({of(student, 'frechet'):.3g} against "
        f"{of(few, 'frechet'):.3g}) and accuracy ({of(student, judge):.1%} against {of(few, judge):.1%})."
    )
    speed = ""
    if f"test/{student}/seconds_per_chunk" in metrics and f"test/{full}/seconds_per_chunk" in metrics:
        speed = f", at {of(full, 'seconds_per_chunk') / of(student, 'seconds_per_chunk'):.1f} times its speed"
    beside_full = (
        f"{names[student]} beside {names[full]}: {of(student, judge) / max(of(full, judge), 1e-9):.0%} of its "
        f"accuracy, {of(student, 'frechet') / max(of(full, 'frechet'), 1e-9):.2f} times its Fréchet distance, "
        f"{of(student, 'dynamics') / max(of(full, 'dynamics'), 1e-9):.0%} of its dynamics{speed}."
    )
    return [text, beside_full]
