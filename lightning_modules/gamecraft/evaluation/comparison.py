"""Variants of a model side by side, as an ablation: what each part of the method is worth, with controls and ceilings.

Axis legend: S start, B chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ....registry import UserError
from ..metrics.baselines import mean_and_error
from ..vae import GameplayVAE
from .chunks import ChunkModel, answer
from .counterfactual import NUM_ACTIONS, Judged, compare_answers, judge_answers
from .held_out import CounterfactualSet, draw_chunks, mean_picture
from .judges import Judges, Verdict
from .prediction import Row, control_rows, prediction_table

Groups = Mapping[str, Mapping[str, str]]  # group -> label -> key of a variant
CLIP, FRAME = "a clip", "one frame"
ONE_FRAME = "_one_frame"  # ends the key of a variant that is asked from one frame
_CONTROLS = ("real", "ceiling", "still")
_EXACT = ("dynamics", "consistency", "trans_error", "rot_error")


@dataclass(frozen=True)
class Variant:
    """One trained model of a comparison.

    Attributes:
        key: for metrics; `<key>_one_frame` stands for the same asked from one frame.
        from_clip: the model, shown a clip of history.
        from_frame: the same, shown the last frame alone.
    """

    key: str
    from_clip: ChunkModel
    from_frame: ChunkModel

    def asked(self) -> tuple[tuple[str, ChunkModel], tuple[str, ChunkModel]]:
        """(key, model) for both kinds of history."""
        return (self.key, self.from_clip), (f"{self.key}{ONE_FRAME}", self.from_frame)


def compare_variants(
    data: Path,
    variants: Sequence[Variant],
    groups: Groups,
    vae: GameplayVAE | None,
    judges: Judges,
    num_chunks: int,
    num_starts: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Metrics, tables and sentences on all variants, as the content of results.json.

    Every variant answers twelve actions from the same starts, and the same real chunks are predicted, each from a clip
    and from one frame: which history a variant was trained on decides which of the two it can be good at.

    Args:
        data: folder of the data set; its test, counterfactual and val folders are read.
        variants: the first is the one that all others are compared with.
        groups: group -> label -> key; a variant may stand in several.
        vae: for the ceilings; None leaves them out.
        judges: the networks that judge.
        num_chunks: real chunks to predict.
        num_starts: starts of the twelve actions.
        batch_size: chunks generated at once.
        seed: of every draw.
    """
    models = [pair for variant in variants for pair in variant.asked()]
    starts = CounterfactualSet(data / "counterfactual", num_starts, seed)
    judged = judge_answers(starts, models, vae, judges, num_starts, batch_size, seed)
    control = compare_answers(judged, models, judges)
    chunks = draw_chunks(data / "test", num_chunks, seed)
    real, stride = chunks.real_NTCHW, judges.frame_stride
    rows = [
        Row(model.name, key, answer(model, chunks.request, batch_size), real, judges.net, stride)
        for key, model in models
    ]
    mean_CHW = mean_picture(data / "val", 256, seed)
    controls = control_rows(chunks, vae, mean_CHW, judges.net, stride, batch_size)
    prediction = prediction_table([*rows, *controls], chunks, stride)
    tables = [_grouped(groups, shown, judged, control["metrics"], rows) for shown in (CLIP, FRAME)]
    kept = {k: v for k, v in control["metrics"].items() if k.rpartition("/")[2] not in ("luminance", "seam", "psnr")}
    return {
        "metrics": kept | prediction["metrics"],
        "tables": [*tables, *prediction["tables"]],
        "statements": _sentences(groups, variants[0].key, judged, control["metrics"], rows),
    }


def check_groups(groups: Groups, keys: Sequence[str]) -> Groups:
    """The groups, or a single one of all variants where there are none.

    Raises:
        UserError: for a group that names no variant.
    """
    for group, members in groups.items():
        for label, key in members.items():
            if key not in keys:
                raise UserError(
                    f"groups: '{group}' has '{label}: {key}', and no model is called so\nThere are {', '.join(keys)}."
                )
    return groups or {"all": {key: key for key in keys}}


def _grouped(
    groups: Groups, shown: str, judged: Judged, metrics: Mapping[str, float], rows: Sequence[Row]
) -> dict[str, Any]:
    """One table in the form of the paper's: a block of rows a group, then what no model is behind."""
    suffix = "" if shown == CLIP else ONE_FRAME
    psnr = {row.key: row.psnr for row in rows}
    lines: list[list[Any]] = []

    def add(group: str, label: str, key: str) -> None:
        scalars = judged.verdicts[key].scalars()
        cells: list[Any] = [group, label, metrics.get(f"test/{key}/frechet")]
        cells += [float(scalars[name].mean()) for name in _EXACT]
        for name in ("accuracy_feature", "accuracy_motion"):
            cells += mean_and_error(scalars[name]) if name in scalars else (None, None)
        cells += [float(psnr[key][span].mean()) if key in psnr else None for span in ((1, 8), (1, 33))]
        lines.append(cells)

    for group, members in groups.items():
        for label, key in members.items():
            add(group, label, key + suffix)
    for key in _CONTROLS:
        if key in judged.verdicts:
            add("no model", judged.verdicts[key].name, key)
    num_starts = len(judged.verdicts["real"].features_ND) // NUM_ACTIONS
    floor = metrics.get("test/real/frechet_halves")
    note = (
        f"{num_starts} held-out starts, {NUM_ACTIONS} actions each (chance {1 / NUM_ACTIONS:.1%}); ± is one standard "
        "error over starts, for one training: seeds differ by more. FVD-IDM is over features of the inverse-dynamics "
        "network, no FVD, and not comparable to the paper's; two halves of the real answers are at "
        f"{'–' if floor is None else f'{floor:.3g}'}. Errors are of motion measured by that network against the "
        "commanded one, not of reconstructed trajectories; the paper's aesthetic score is left out. The paper asks "
        "from pictures alone. PSNR is of recorded chunks."
    )
    columns = [
        "", "variant", "FVD-IDM", "dynamic average, px/frame", "consistency", "translation error, units/frame",
        "rotation error, deg/frame", "right, by features", "±", "right, by motion", "±",
        "PSNR 1-8, dB", "PSNR 1-33, dB",
    ]  # fmt: skip
    return {"title": f"Ablation, asked from {shown} of history", "columns": columns, "rows": lines, "note": note}


def _sentences(
    groups: Groups, reference: str, judged: Judged, metrics: Mapping[str, float], rows: Sequence[Row]
) -> list[str]:
    """Each variant against the reference, on the same starts and chunks."""
    by_key = {row.key: row for row in rows}
    said = []
    for group, members in groups.items():
        label_of_reference = next((label for label, key in members.items() if key == reference), reference)
        for label, key in members.items():
            if key == reference:
                continue
            parts = []
            for shown, suffix in ((CLIP, ""), (FRAME, ONE_FRAME)):
                mine, its = judged.verdicts[key + suffix], judged.verdicts[reference + suffix]
                distance, its_distance = (metrics[f"test/{k}{suffix}/frechet"] for k in (key, reference))
                gain, error = mean_and_error(_accuracy(mine) - _accuracy(its))
                psnr = by_key[key + suffix].psnr[(1, 33)] - by_key[reference + suffix].psnr[(1, 33)]
                decibels, deviation = mean_and_error(psnr)
                parts.append(
                    f"from {shown} FVD-IDM {distance:.3g} against {its_distance:.3g}, recognised actions "
                    f"{100 * gain:+.1f} ± {100 * error:.1f} points, PSNR over 33 frames {decibels:+.2f} ± "
                    f"{deviation:.2f} dB"
                )
            said.append(f"{group}: {label} against {label_of_reference}: {'; '.join(parts)}.")
    return said


def _accuracy(verdict: Verdict) -> Tensor:
    """Accuracy of each start [S], by feature distance where there is that judge."""
    scalars = verdict.scalars()
    return scalars.get("accuracy_feature", scalars["accuracy_motion"])
