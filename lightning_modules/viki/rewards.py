"""The rewards of VIKI-R's three levels: a format part of 0.1 and an accuracy part of 0.9 (arXiv 2506.09049, section 4).

They score as the released code does (verl/utils/reward_score/viki_1.py, viki_2.py, viki_3.py), faults included; every
one is a pure function of an answer's text and a record's ground truth and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from ...datamodules.viki.checker import Verdict, check_plan
from ...datamodules.viki.plans import find_answer, has_think_then_answer, literal, reads_as_list_or_dict
from ...registry import Registry

REWARDS = Registry("rewards")
FORMAT_WEIGHT, ACCURACY_WEIGHT = 0.1, 0.9
NUM_POINTS = 5
POOLED_LEVELS = (1, 2)
"""Levels whose accuracies may be averaged: at level 3 a constant answer has 0.83 to 0.9 of the released accuracy."""
SHARP_SCALE_PX = 20.0
_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")


class Reward(NamedTuple):
    """Parts of one answer's reward, each 0 to 1.

    Attributes:
        format: 1 if the answer has the form asked for.
        accuracy: how right it is.
        total: 0.1 format + 0.9 accuracy.
    """

    format: float
    accuracy: float
    total: float


def _reward(form: float, accuracy: float) -> Reward:
    return Reward(form, accuracy, FORMAT_WEIGHT * form + ACCURACY_WEIGHT * accuracy)


@REWARDS.register("viki/l1", paper="2506.09049")
def activation_reward(answer: str, ground_truth: str) -> Reward:
    """Level 1: the set of robot types must be the right one; order and repetition do not count.

    Args:
        answer: the model's text.
        ground_truth: a list of types as text, "['fetch', 'unitree_h1']".
    """
    found = find_answer(answer)
    listed = found is not None and len(found) >= 2 and found[0] == "[" and found[-1] == "]"
    form = float(listed and has_think_then_answer(answer))
    chosen = "" if found is None else found
    try:
        ours, gold = literal(chosen), literal(ground_truth)
        if isinstance(ours, list) and isinstance(gold, list):
            return _reward(form, float(_as_set(ours) == _as_set(gold)))
    except (ValueError, TypeError):
        pass
    return _reward(form, float(_plain_text(chosen) == _plain_text(ground_truth) != ""))


def _as_set(items: Sequence[Any]) -> set[Any]:
    return {tuple(item) if isinstance(item, list) else item for item in items}


def _plain_text(text: str) -> str:
    """Text as the released code's string grader compares it where one side is no list.

    Deviation: that grader also takes formulae for equal which a computer algebra system finds equal.
    """
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}|\\[!,;: ]|\\left|\\right", r"\1", text.strip())
    return re.sub(r"\\?[$%]|\s|^\{|\}$", "", text).lower()


@REWARDS.register("viki/l2", paper="2506.09049")
def plan_reward(answer: str, ground_truth: Mapping[str, Any], *, strict: bool = False, seed: int = 0) -> Reward:
    """Level 2: the plan must be feasible, reach the goal, and be no longer than the record's own: all or nothing.

    Args:
        answer: the model's text.
        ground_truth: the record's, in the released form.
        strict: judge by the mended checker.
        seed: of start areas that the record leaves open (the released code draws them anew each time).
    """
    return plan_reward_and_verdict(answer, ground_truth, strict=strict, seed=seed)[0]


def plan_reward_and_verdict(
    answer: str, ground_truth: Mapping[str, Any], *, strict: bool = False, seed: int = 0, length_counts: bool = True
) -> tuple[Reward, Verdict | None]:
    """Level 2 with the checker's verdict; None where the answer has no text to check.

    Args:
        answer: the model's text.
        ground_truth: the record's, in the released form.
        strict: judge by the mended checker.
        seed: of start areas that the record leaves open.
        length_counts: whether a plan longer than the record's own is worth nothing (the paper's step penalty).
    """
    found = find_answer(answer)
    if found is None:
        return _reward(0.0, 0.0), None
    form = float(has_think_then_answer(answer) and reads_as_list_or_dict(found))
    verdict = check_plan(ground_truth, answer, strict=strict, seed=seed)
    right = verdict.ok
    if right and length_counts:
        right = len(ground_truth["time_steps"]) / verdict.num_steps >= 0.99
    return _reward(form, float(right)), verdict


@REWARDS.register("viki/l3", paper="2506.09049")
def trajectory_reward(answer: str, ground_truth: str) -> Reward:
    """Level 3: 1 - distance / scale in pixels, mean over RMSE (360), Hausdorff (360), Fréchet (400) and both arms.

    The scale is flat: the centre of the picture, always, scores about 0.83. See `sharp_trajectory_score` and `skill`.

    Args:
        answer: the model's text.
        ground_truth: two lists of five [x, y] points as text, pixels.
    """
    found = find_answer(answer)
    if found is None:
        return _reward(0.0, 0.0)
    try:
        paths = literal(found)
    except ValueError:
        return _reward(0.0, 0.0)
    form = float(_blocks_follow(answer) and _has_two_paths(paths))
    distances = trajectory_distances(paths, ground_truth)
    if distances is None:
        return _reward(form, 0.0)
    scores = numpy.clip(1 - distances / numpy.array([360.0, 360.0, 400.0]), 0, 1)
    return _reward(form, float(scores.mean(1).mean()))


def _blocks_follow(text: str) -> bool:
    """Whether an answer block comes right after a think block, anywhere in the text."""
    start = text.find("<think>")
    between = _BETWEEN_BLOCKS.search(text, start + 7) if start >= 0 else None
    return between is not None and text.find("</answer>", between.end()) >= 0


def _has_two_paths(paths: Any) -> bool:
    return isinstance(paths, list) and len(paths) == 2 and all(
        isinstance(path, list) and len(path) == NUM_POINTS and all(map(_is_point, path)) for path in paths
    )  # fmt: skip


def _is_point(point: Any) -> bool:
    return isinstance(point, list | tuple) and len(point) == 2 and all(isinstance(x, int | float) for x in point)


def trajectory_distances(paths: Any, ground_truth: str | Sequence[Any]) -> numpy.ndarray | None:
    """Distances of two trajectories to the right ones, float64 [2, 3] in pixels: RMSE over the coordinates, Hausdorff,
    discrete Fréchet; own arm first. None where the paths have not the form of the right ones.

    Note that the paper's tables give an RMSE over points, larger by the square root of two.
    """
    try:
        gold = literal(ground_truth) if isinstance(ground_truth, str) else ground_truth
        if not (isinstance(paths, list) and isinstance(gold, list) and len(paths) == len(gold) == 2):
            return None
        rows = []
        for ours, right in zip(paths, gold, strict=True):
            if len(ours) != len(right) or not all(map(_is_point, ours + right)):
                return None
            rows.append(_distances(numpy.array(ours), numpy.array(right)))
        return numpy.array(rows, float)
    except (ValueError, TypeError, ArithmeticError):
        return None


def _distances(ours_N2: numpy.ndarray, right_N2: numpy.ndarray) -> tuple[float, float, float]:
    with numpy.errstate(all="ignore"):  # points at infinity
        rmse = numpy.sqrt(numpy.mean((ours_N2 - right_N2) ** 2))
        apart = numpy.array([[numpy.linalg.norm(a - b) for b in right_N2] for a in ours_N2])
    hausdorff = max(apart.min(1).max(), apart.min(0).max())
    frechet = numpy.full(apart.shape, numpy.inf)
    for i, j in numpy.ndindex(*apart.shape):
        before = [frechet[a, b] for a, b in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if a >= 0 and b >= 0]
        frechet[i, j] = max(min(before), apart[i, j]) if before else apart[i, j]
    return float(rmse), float(hausdorff), float(frechet[-1, -1])


def sharp_trajectory_score(distances_A3: numpy.ndarray | None) -> float:
    """Our sharper level 3 scale: exp(-distance / 20 px), mean over distances and arms; 0 for an unreadable answer."""
    return 0.0 if distances_A3 is None else float(numpy.exp(-distances_A3 / SHARP_SCALE_PX).mean())


def skill(error_px: float, constant_error_px: float) -> float:
    """1 - error / error of the best constant answer: 0 is no better than not looking, 1 is perfect.

    Raises:
        ValueError: if the constant's error is not positive.
    """
    if constant_error_px <= 0:
        raise ValueError("the constant answer has no error: there is nothing to be skilled at")
    return 1 - error_px / constant_error_px
