"""What an answer to a record is worth: the reward's parts, at level 3 the errors in pixels too; and means of many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from ...datamodules.viki.plans import find_answer, literal
from ...datamodules.viki.records import Record
from .rewards import REWARDS, plan_reward_and_verdict, trajectory_distances


@dataclass(frozen=True)
class Score:
    """One answer's worth.

    Attributes:
        level: of the record.
        family: its sub-family.
        format: 1 if the answer has the form asked for.
        accuracy: the released accuracy, 0 to 1.
        error_px: level 3, mean RMSE of both arms over the coordinates; None elsewhere and where it can't be read.
        code: level 2, the checker's error code; empty where there is none.
    """

    level: int
    family: str
    format: float
    accuracy: float
    error_px: float | None = None
    code: str = ""


def score(record: Record, answer: str, *, strict: bool = False) -> Score:
    """Judge one answer by the record's reward.

    Args:
        record: what was asked.
        answer: the model's text.
        strict: judge plans by the mended checker.
    """
    if isinstance(record.ground_truth, Mapping):
        reward, verdict = plan_reward_and_verdict(answer, record.ground_truth, strict=strict)
        code = (verdict.code or "") if verdict else "UNREADABLE_PLAN"
        return Score(2, record.family, reward.format, reward.accuracy, code=str(code))
    reward = REWARDS[f"viki/l{record.level}"](answer, record.ground_truth)
    error = _error_px(answer, record.ground_truth) if record.level == 3 else None
    return Score(record.level, record.family, reward.format, reward.accuracy, error)


def _error_px(answer: str, ground_truth: Any) -> float | None:
    try:
        paths = literal(find_answer(answer) or "")
    except ValueError:
        return None
    distances = trajectory_distances(paths, ground_truth)
    return None if distances is None or not numpy.isfinite(distances).all() else float(distances[:, 0].mean())


def by_family(scores: Iterable[Score]) -> dict[tuple[int, str], list[Score]]:
    """Scores of each level and sub-family, in the families' order."""
    found: dict[tuple[int, str], list[Score]] = defaultdict(list)
    for one in scores:
        found[one.level, one.family].append(one)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], _in_order(item[0][1]))))


def _in_order(family: str) -> tuple[int, ...]:
    return tuple(int(part) for part in family.split("-") if part.isdigit())


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The middle 95 % of means of values drawn again and again (percentile bootstrap)."""
    x = numpy.asarray(values, float)
    drawn = numpy.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
    low, high = numpy.quantile(x[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)
