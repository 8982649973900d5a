"""`fulgurite gamecraft evaluate`: teacher and student on maps that they never saw, every number beside its controls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    import torch

    from .evaluation.chunks import ChunkModel
    from .evaluation.judges import Judges
    from .vae import GameplayVAE


UNFINISHED = "unfinished.json"


@COMMANDS.register("gamecraft evaluate", paper="2506.17201")
def evaluate(
    data: Path, vae: Path, idm: Path, out: Path, teacher: Path | None = None, student: Path | None = None,
    num_chunks: int = 128, num_starts: int = 64, num_speed: int = 16, num_drift: int = 64, drift_chunks: int = 16,
    teacher_steps: int = 50, student_steps: int = 8, few_steps: int = 4, batch_size: int = 48,
    feature_distance: bool = True, frame_stride: int = 4, flow_stride: int = 4, seed: int = 0,
    attention: str | dict[str, Any] | None = None, plan: Path | None = None,
) -> None:  # fmt: skip
    """Measure one-chunk prediction, control over twelve actions, speed response, drift and a full turn.

    Args:
        data: folder of the data set; its test, counterfactual and val folders are read.
        vae: folder of the trained autoencoder.
        idm: folder of the trained inverse-dynamics network.
        out: folder for results.json and the pictures.
        teacher: folder of the trained teacher, `<stage>/transformer`; sampled at teacher_steps and at student_steps.
        student: folder of the distilled student, likewise; sampled at student_steps and at few_steps.
        num_chunks: real chunks to predict, drawn by seed.
        num_starts: starts of the counterfactual test; the Fréchet distance has 12 clips of each.
        num_speed: starts of the speed response.
        num_drift: starts of the drift and of the full turn.
        drift_chunks: chunks in a row.
        teacher_steps: Euler steps of the teacher.
        student_steps: steps of the student, and of the teacher beside it.
        few_steps: steps of the student at its fastest.
        batch_size: chunks generated at once.
        feature_distance: judge by EfficientNet-Lite0 too; it is fetched if the cache lacks it.
        frame_stride: frames between two that the feature distance looks at.
        flow_stride: pairs of frames between two that the flow is measured on.
        seed: of every draw.
        attention: backend of the student's attention (the teacher's, where no student is named), such as sdpa or paro;
            or a mapping of layer patterns to backends.
        plan: file of the plan for paro or int4, made for these weights; what it does not fit (other histories) is
            computed by sdpa, with a warning.
    """
    if teacher is None and student is None:
        raise UserError("nothing to evaluate: name a --teacher, a --student, or both")
    import torch

    from .evaluation.chunks import Trained, load_vae
    from .evaluation.judges import Judges
    from .inverse_dynamics import InverseDynamicsNet
    from .metrics.perceptual import EfficientNetLite0

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = load_vae(vae, device)
    models: list[tuple[str, ChunkModel]] = []
    if student is not None:
        trained = Trained.load(student, device)
        trained.transformer.set_attention(attention, plan)
        for steps in dict.fromkeys((student_steps, few_steps)):
            models.append((f"student_{steps}", trained.model(f"student, {steps} steps", autoencoder, steps)))
    if teacher is not None:
        trained = Trained.load(teacher, device)
        if student is None:
            trained.transformer.set_attention(attention, plan)
        for steps in dict.fromkeys((teacher_steps, student_steps)):
            models.append((f"teacher_{steps}", trained.model(f"teacher, {steps} steps", autoencoder, steps)))
    net = EfficientNetLite0.pretrained().to(device) if feature_distance else None
    judges = Judges(InverseDynamicsNet.load(idm)[0].to(device), net, frame_stride, flow_stride)
    sizes = Sizes(num_chunks, num_starts, num_speed, num_drift, drift_chunks, batch_size)
    pair = (f"teacher_{teacher_steps}", f"teacher_{student_steps}", f"student_{student_steps}")
    results = measure(data, models, autoencoder, judges, sizes, out, seed, pair if teacher and student else None)
    write_json(out / "results.json", {"schema_version": 1, **results})
    (out / UNFINISHED).unlink(missing_ok=True)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        num_chunks: real chunks to predict.
        num_starts: starts of the counterfactual test.
        num_speed: starts of the speed response.
        num_drift: starts of the drift and of the full turn.
        drift_chunks: chunks in a row.
        batch_size: chunks generated at once.
    """

    num_chunks: int
    num_starts: int
    num_speed: int
    num_drift: int
    drift_chunks: int
    batch_size: int


def measure(
    data: Path,
    models: list[tuple[str, ChunkModel]],
    vae: GameplayVAE | None,
    judges: Judges,
    sizes: Sizes,
    out: Path,
    seed: int,
    distilled: tuple[str, str, str] | None = None,
) -> dict[str, Any]:
    """All measurements of some models, as the content of results.json; the pictures go to `out`.

    What is measured so far lies in `out`/unfinished.json, for whoever is cut off.

    Args:
        data: folder of the data set.
        models: (key, model); the first is the one that is played with: shuffled actions, speeds, drift and turn are
            measured on it alone.
        vae: for the ceilings; None leaves them out.
        judges: the networks that judge.
        sizes: how much.
        out: folder for the pictures.
        seed: of every draw.
        distilled: keys of the teacher at full steps, the teacher at the student's steps, and the student; None = no
            such comparison.
    """
    from ...datamodules.gamecraft.actions import COUNTERFACTUAL_CHORDS
    from . import figures
    from .evaluation.counterfactual import compare_answers, compare_distillation, judge_answers
    from .evaluation.drift import drift, full_turn
    from .evaluation.held_out import CounterfactualSet, draw_chunks, mean_picture
    from .evaluation.prediction import predict_chunks
    from .evaluation.response import SPEEDS, speed_response

    begun = time.monotonic()

    def say(what: str) -> None:
        Console(stderr=True).print(f"evaluate, {time.monotonic() - begun:.0f} s: {what}", highlight=False)

    found: dict[str, Any] = {"metrics": {}, "tables": [], "statements": []}

    def keep(part: dict[str, Any]) -> None:
        found["metrics"] |= part["metrics"]
        found["tables"] += part["tables"]
        found["statements"] += part.get("statements", [])
        write_json(out / UNFINISHED, {"schema_version": 1, **found})

    out.mkdir(parents=True, exist_ok=True)
    key, played = models[0]
    size = sizes.batch_size
    say(f"one chunk ahead, {sizes.num_chunks} chunks")
    chunks = draw_chunks(data / "test", sizes.num_chunks, seed)
    mean_CHW = mean_picture(data / "val", 256, seed)
    one_each = [m for m in models if m[0] == key or m[0].startswith("teacher")][:2]
    prediction, strips = predict_chunks(chunks, one_each, vae, mean_CHW, judges.net, judges.frame_stride, size)
    keep(prediction)
    figures.draw_film(strips, chunks.request.history_BTCHW[: len(strips[0][1]), -1], out / "film.png")

    most = max(sizes.num_starts, sizes.num_speed, sizes.num_drift)
    starts = CounterfactualSet(data / "counterfactual", most, seed)
    say(f"twelve actions from {min(sizes.num_starts, len(starts))} starts")
    judged = judge_answers(starts, models, vae, judges, sizes.num_starts, size, seed)
    control = compare_answers(judged, models, judges)
    names = {k: m.name for k, m in models}
    if distilled is not None:
        control["statements"] += compare_distillation(control["metrics"], *distilled, names)
    keep(control)
    actions = [str(c).replace("@0.8", "") for c in COUNTERFACTUAL_CHORDS]
    figures.draw_answers(
        {"real answers": judged.example["real answers"], **judged.example}, actions, out / "answers.png"
    )
    matrices = _matrices(judged.verdicts[key], judged.verdicts["real"], played.name)
    figures.draw_confusion(matrices, actions, out / "confusion.png")

    say("speed response")
    response, flows = speed_response(starts, played, judges, sizes.num_speed, size, seed)
    keep(response)
    figures.draw_response(flows, SPEEDS, out / "speed.png")
    say(f"{sizes.drift_chunks} chunks in a row, and a full turn")
    real_ND = judged.verdicts["real"].features_ND
    drifted, curves = drift(starts, played, judges, real_ND, sizes.num_drift, sizes.drift_chunks, size, seed)
    keep(drifted)
    figures.draw_drift({played.name: curves}, out / "drift.png")
    keep(full_turn(starts, played, vae, judges, sizes.num_drift, size, seed))
    return {**found, "figures": ["film.png", "answers.png", "confusion.png", "speed.png", "drift.png"]}


def _matrices(played: Any, real: Any, name: str) -> dict[str, torch.Tensor]:
    found = {}
    if played.by_feature.votes_AA.any():
        found[f"{name}: by feature distance"] = played.by_feature.confusion()
    found[f"{name}: by inverse dynamics"] = played.by_motion.confusion()
    found["real answers: by inverse dynamics"] = real.by_motion.confusion()
    return found
