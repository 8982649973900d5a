"""Rewards as the released code gives them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.lightning_modules.viki.rewards import (
    REWARDS,
    activation_reward,
    plan_reward,
    plan_reward_and_verdict,
    sharp_trajectory_score,
    skill,
    trajectory_distances,
    trajectory_reward,
)
from fulgurite.registry import ROOT

TASK = {
    "robots": {"R1": "fetch"},
    "init_pos": {"apple_0": ["kitchen work area"]},
    "goal_constraints": [[{"type": "asset", "name": "apple", "is_satisfied": True, "status": {"pos.name": "table"}}]],
    "temporal_constraints": [],
    "time_steps": [{}] * 5,
}
WAY = ["Move apple", "Reach apple", "Grasp apple", "Move table", "Place table"]
GOLD3 = str([[[10, 10], [20, 20], [30, 30], [40, 40], [50, 50]], [[60, 60], [70, 70], [80, 80], [90, 90], [99, 99]]])


def said(answer: str, think: str = "x") -> str:
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def steps(*actions: str) -> str:
    return json.dumps([{"step": i, "actions": {"R1": a.split(" ", 1)}} for i, a in enumerate(actions, 1)])


def test_the_registry_has_the_three_levels():
    assert list(REWARDS) == ["viki/l1", "viki/l2", "viki/l3"]


@pytest.mark.parametrize(
    ("answer", "form", "accuracy"),
    [
        (said("['fetch', 'stompy']"), 1, 1),
        (said("['stompy', 'fetch', 'fetch']"), 1, 1),
        (said("['stompy']"), 1, 0),
        (said("fetch, stompy"), 0, 0),
        (said("[fetch]"), 1, 0),
        (said("$['fetch', 'stompy']$"), 0, 1),  # the string grader drops the dollar signs
        ("\n" + said("['fetch', 'stompy']"), 0, 1),
        ("<answer>['fetch', 'stompy']</answer>", 0, 1),
        ("", 0, 0),
    ],
)
def test_level_1(answer, form, accuracy):
    reward = activation_reward(answer, "['fetch', 'stompy']")
    assert (reward.format, reward.accuracy) == (form, accuracy)
    assert reward.total == pytest.approx(0.1 * form + 0.9 * accuracy)


@pytest.mark.parametrize(
    ("answer", "form", "accuracy"),
    [
        (said(steps(*WAY)), 1, 1),
        (said(steps(*WAY, "Move apple")), 1, 0),  # a step too many
        (said(steps(*WAY[:-1])), 1, 0),
        (said(steps(*WAY).replace("{", "{{").replace("}", "}}")), 1, 0),
        (said(steps(*WAY).replace("Move", "MOVE")), 1, 1),
        (said("[1 + 1]"), 1, 0),
        (said("[print(1)]"), 0, 0),
        (said("[null]"), 0, 0),
        (said(steps(*WAY), think="so <answer>[]</answer>"), 1, 0),  # the first pair of tags counts
        ("thus " + said(steps(*WAY)), 0, 1),
    ],
)
def test_level_2(answer, form, accuracy):
    reward = plan_reward(answer, TASK)
    assert (reward.format, reward.accuracy) == (form, accuracy)


def test_the_length_may_be_left_out_of_account():
    longer = said(steps(*WAY, "Move apple"))
    reward, verdict = plan_reward_and_verdict(longer, TASK, length_counts=False)
    assert reward.total == 1 and verdict is not None and verdict.num_steps == 6
    assert plan_reward_and_verdict("no tags", TASK) == ((0, 0, 0), None)


@pytest.mark.parametrize(
    ("answer", "form", "accuracy"),
    [
        (said(GOLD3), 1, 1),
        ("  " + said(GOLD3), 1, 1),
        (said(GOLD3).replace("\n", " so "), 0, 1),
        (said(GOLD3.replace("[10, 10]", "[1e999, 10]")), 1, 0.5),
        (said(GOLD3.replace("[10, 10], ", "")), 0, 0),
        (said(GOLD3.replace("10, 10", "'a', 10")), 0, 0),
        ("", 0, 0),
    ],
)
def test_level_3(answer, form, accuracy):
    reward = trajectory_reward(answer, GOLD3)
    assert (reward.format, reward.accuracy) == (form, pytest.approx(accuracy))


def test_distances_of_trajectories():
    moved = [[[x + 3, y + 4] for x, y in path] for path in json.loads(GOLD3)]
    found = trajectory_distances(moved, GOLD3)
    assert found is not None and found == pytest.approx(numpy.array([[12.5**0.5, 5, 5]] * 2))
    late = [
        [path[0], path[0], *path[2:]] for path in json.loads(GOLD3)
    ]  # behind on the way: Fréchet, not Hausdorff alone
    there_and_back = [path[::-1] for path in json.loads(GOLD3)]
    far = trajectory_distances(there_and_back, GOLD3)
    assert far is not None and far[0, 1] == 0 and far[0, 2] == pytest.approx(40 * 2**0.5)
    assert trajectory_distances(late, GOLD3) is not None and trajectory_distances([1, 2], GOLD3) is None
    assert sharp_trajectory_score(found) < trajectory_reward(said(str(moved)), GOLD3).accuracy
    assert sharp_trajectory_score(None) == 0 and skill(5, 10) == 0.5 and skill(20, 10) == -1
    with pytest.raises(ValueError, match="no error"):
        skill(1, 0)


def test_an_answer_without_end_is_not_read():
    started = time.process_time()
    reward = plan_reward(f"<think></think><answer>[1{',1' * 600_000}]</answer>", TASK)
    assert reward.total == 0 and time.process_time() - started < 1, "it is parsed all the same"


@settings(max_examples=200, deadline=None)
@given(text=st.text() | st.text(alphabet="[]{}()'\":,-1e9<>/ \n", max_size=120))
def test_no_answer_makes_them_raise(text):
    truths = {"viki/l1": "['fetch']", "viki/l2": TASK, "viki/l3": GOLD3}
    for name, truth in truths.items():
        for answer in (text, said(text), f"<think>{text}</think><answer>{text}"):
            assert 0 <= REWARDS[name](answer, truth).total <= 1


def test_cases_that_the_released_code_was_run_on():
    file = next(ROOT.resolve().parent.glob("*/data/viki/viki_parity_examples.jsonl"), None)
    if file is None:
        pytest.skip("needs the released VIKI-Bench material beside the clone (*/data/viki); see the paper's README")
    cases = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert len(cases) >= 40
    for case in cases:
        if case["deterministic"] is False:
            continue
        verdict = None
        if case["level"] == "L2":
            reward, verdict = plan_reward_and_verdict(case["answer"], case["ground_truth"])
        else:
            reward = REWARDS[f"viki/{case['level'].lower()}"](case["answer"], case["ground_truth"])
        assert reward._asdict() == pytest.approx(case["official"], abs=1e-9), case["id"]
        told = case["checker"]
        if told and told["called"]:
            expected = "RELEASED_CHECKER_RAISES" if told["exception"] else told["error_code"]
            assert verdict is not None and verdict.code == expected, case["id"]


def test_brackets_that_never_close_cost_no_more_than_their_length() -> None:
    """A pattern that looked from every opening one to the text's end took 9 s for 60 kB, a hundred times that here."""
    started = time.process_time()
    assert activation_reward("<think>a</think><answer>" + "\\text{" * 100_000 + "</answer>", "x").accuracy == 0
    assert time.process_time() - started < 30
