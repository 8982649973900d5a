"""How robots share the work of a plan, over many answers of level 2: side by side, idle, and who does what.

The paper (arXiv 2506.09049, section 5) speaks of cooperation that reinforcement brings out; these are numbers for it,
beside those of the right plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from ....datamodules.files import atomic_write
from ....datamodules.viki.checker import check_plan
from ....datamodules.viki.plans import Step, find_answer, literal, steps_of
from ....datamodules.viki.records import Record
from ....datamodules.viki.vocabulary import PRIMITIVES, robots

RIGHT = "right plans"
MEASURES = {
    "parallel": "steps in which two robots act, of plans for several",
    "idle": "turns in which a robot waits, of plans for several",
    "extra_steps": "steps beyond the record's own plan, of plans that reach the goal",
    "information_bits": "what a robot's kind tells of its actions, mutual information",
}
_KINDS = ("humanoid", "wheeled", "arm", "dog")
_DRAWS = 1000


def cooperation(records: Sequence[Record], texts: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Each of `MEASURES` with the middle 95 % of bootstrap draws over records; what no answer tells is left out.

    Args:
        records: of level 2.
        texts: an answer to each; those that can't be read count for nothing.
    """
    counts = numpy.array([_counts(*pair) for pair in zip(records, texts, strict=True)])
    chosen = numpy.random.default_rng(0).multinomial(len(counts), numpy.full(len(counts), 1 / len(counts)), _DRAWS)
    drawn = chosen @ counts
    found = {}
    for name, measure in _MEASURE.items():
        value = measure(counts.sum(0)[None])[0]
        if numpy.isfinite(value):
            low, high = numpy.nanquantile(measure(drawn), [0.025, 0.975])
            found[name] = (float(value), float(low), float(high))
    return found


def _counts(record: Record, text: str) -> numpy.ndarray:
    """What one answer adds: steps, parallel steps, turns, idle turns, right plans, steps beyond; then actions by kind
    of robot and primitive.
    """
    assert isinstance(record.ground_truth, Mapping)
    found = numpy.zeros(6 + len(_KINDS) * len(PRIMITIVES))
    steps, team = _steps(text), record.ground_truth["robots"]
    if not steps:
        return found
    if len(team) > 1:
        acting = [sum(robot in team for robot in step) for step in steps]
        found[:4] = len(steps), sum(n > 1 for n in acting), len(steps) * len(team), len(steps) * len(team) - sum(acting)
    if check_plan(record.ground_truth, text).ok:
        found[4:6] = 1, len(steps) - len(record.ground_truth["time_steps"])
    for step in steps:
        for robot, command in step.items():
            primitive = command.split(",")[0].capitalize()
            if robot in team and primitive in PRIMITIVES:
                kind = _KINDS.index(robots()[team[robot]].kind)
                found[6 + kind * len(PRIMITIVES) + list(PRIMITIVES).index(primitive)] += 1
    return found


def _steps(text: str) -> list[Step]:
    try:
        return steps_of(literal(find_answer(text) or ""))
    except ValueError:
        return []


def _information(sums_BC: numpy.ndarray) -> numpy.ndarray:
    joint_BKP = sums_BC[:, 6:].reshape(len(sums_BC), len(_KINDS), -1)
    total_B11 = joint_BKP.sum((1, 2), keepdims=True)
    p_BKP = joint_BKP / total_B11
    apart_BKP = p_BKP.sum(1, keepdims=True) * p_BKP.sum(2, keepdims=True)
    return numpy.where(p_BKP == 0, 0, p_BKP * numpy.log2(p_BKP / apart_BKP)).sum((1, 2))


def _share(part: int, whole: int) -> Callable[[numpy.ndarray], numpy.ndarray]:
    return lambda sums_BC: sums_BC[:, part] / sums_BC[:, whole]


def _quiet(measure: Callable[[numpy.ndarray], numpy.ndarray]) -> Callable[[numpy.ndarray], numpy.ndarray]:
    def measured(sums_BC: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(all="ignore"):  # no plan of the kind: not a number
            return measure(sums_BC)

    return measured


_MEASURE = {
    "parallel": _quiet(_share(1, 0)), "idle": _quiet(_share(3, 2)), "extra_steps": _quiet(_share(5, 4)),
    "information_bits": _quiet(_information),
}  # fmt: skip


def cooperation_report(split: str, records: Sequence[Record], answers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Metrics and a table of a split, right plans first; nothing where it has no record of level 2.

    Args:
        split: its name.
        records: of any level.
        answers: who answers -> an answer to each record.
    """
    at = [n for n, record in enumerate(records) if record.level == 2]
    if not at:
        return {"metrics": {}, "tables": []}
    plans = [records[n] for n in at]
    told = {RIGHT: [f"<answer>{record.answer()}</answer>" for record in plans]}
    told |= {who: [texts[n] for n in at] for who, texts in answers.items()}
    found = {who: cooperation(plans, texts) for who, texts in told.items()}
    rows = [
        [who, *(f"{m[n][0]:.3f} ({m[n][1]:.3f} to {m[n][2]:.3f})" if n in m else None for n in MEASURES)]
        for who, m in found.items()
    ]
    note = ". ".join(f"{name}: {meaning}" for name, meaning in MEASURES.items())
    table = {"title": f"Cooperation, {split}", "columns": ["who answers", *MEASURES], "rows": rows, "note": f"{note}."}
    metrics = {f"{split}/{name}/{who}": m[name][0] for who, m in found.items() for name in m}
    return {"metrics": metrics, "tables": [table], "measured": found}


def draw_cooperation(found: Mapping[str, Mapping[str, tuple[float, float, float]]], split: str, file: Path) -> None:
    """A panel a measure, a bar an answerer, with the middle 95 % of draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(11, 0.8 + 0.28 * len(found)), layout="constrained")
    names = list(found)[::-1]
    for axis, name in zip(axes, MEASURES, strict=True):
        there = [who for who in names if name in found[who]]
        values = numpy.array([found[who][name] for who in there]).reshape(-1, 3)
        spread = numpy.abs(values[:, 1:].T - values[:, 0])
        places = [names.index(who) for who in there]
        axis.barh(places, values[:, 0], xerr=spread, color="#9db7d5", error_kw={"lw": 0.8})
        axis.set_yticks(range(len(names)), names if name == next(iter(MEASURES)) else [""] * len(names), fontsize=7)
        axis.set_title(f"{name}, {split}", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
