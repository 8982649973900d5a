"""The released checker's verdicts, its faults mended one by one, and nothing that makes it raise."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.viki.checker import ERROR_CODES, check_plan, check_steps
from fulgurite.datamodules.viki.plans import steps_of
from fulgurite.datamodules.viki.problem import Problem
from fulgurite.datamodules.viki.rules import RELEASED, STRICT, Rules

H1, FETCH, GO2 = {"R1": "unitree_h1"}, {"R1": "fetch"}, {"R1": "unitree_h1", "R2": "unitree_go2"}
WORK, ISLAND = "kitchen work area", "kitchen island area"
FETCH_APPLE = ["R1 Move apple", "R1 Reach apple", "R1 Grasp apple"]
BOTH_DOWN = [
    "R1 Move cardboardbox", "R1 Reach cardboardbox", "R1 Grasp cardboardbox", *FETCH_APPLE, "R1 Move table",
    "R1 Place table", "R2 Move cardboardbox", "R2 Push cardboardbox, R1",
]  # fmt: skip
CUT_AT_ONCE = [
    "R1 Move pear | R2 Move knife", "R1 Reach pear | R2 Reach knife", "R1 Grasp pear | R2 Grasp knife",
    "R1 Move wooden cutting board", "R1 Place wooden cutting board | R2 Interact knife",
]  # fmt: skip
# flag: robots, starts, goals, chains, steps, released code, code with this one fault mended
FAULTS: dict[str, tuple[Any, ...]] = {
    "crashes": (
        FETCH, {"drawer": "mask1"}, [], [], ["R1 Move drawer", "R1 Reach drawer", "R1 Close drawer"],
        "RELEASED_CHECKER_RAISES", None,
    ),
    "any_place": (FETCH, {"apple": WORK}, [], [], ["R1 Move the moon"], None, "NOT_FOUND_ENTITY"),
    "reach_from_afar": (
        FETCH, {"apple": WORK}, [], [], [f"R1 Move {WORK}", "R1 Reach apple"], None, "ACTION_NOT_FEASIBLE",
    ),
    "grasps_all": (
        H1, {"apple": WORK, "pear": WORK}, ["apple at table", "pear at table"], [],
        [f"R1 Move {WORK}", "R1 Reach apple", "R1 Reach pear", "R1 Grasp apple", "R1 Move table", "R1 Place table"],
        None, "FAILED_GOAL_CONSTRAINT",
    ),
    "grasps_anything": (
        FETCH, {"sink": "room"}, [], [], ["R1 Move sink", "R1 Reach sink", "R1 Grasp sink"], None,
        "ACTION_NOT_FEASIBLE",
    ),
    "holds_anything": (
        FETCH, {"apple": WORK, "knife": WORK}, [], [], [*FETCH_APPLE, "R1 Move knife", "R1 Place knife"], None,
        "ACTION_NOT_FEASIBLE",
    ),
    "lost_after_grasp": (
        FETCH, {"apple": WORK}, [f"apple at {WORK}"], [], [*FETCH_APPLE, f"R1 Place {WORK}"], "ACTION_NOT_FEASIBLE",
        None,
    ),
    "tools_lie": (
        FETCH, {"knife": WORK}, ["knife on"], [], ["R1 Move knife", "R1 Interact knife"], None, "ACTION_NOT_FEASIBLE",
    ),
    "same_step": (
        {"R1": "unitree_h1", "R2": "fetch"}, {"pear": WORK, "knife": WORK, "wooden cutting board": ISLAND},
        ["knife on"], [["pear at wooden cutting board", "knife on"]], CUT_AT_ONCE, None, "FAILED_TEMPORAL_CONSTRAINT",
    ),
    "push_drags": (
        GO2, {"apple": WORK, "cardboardbox": ISLAND}, ["apple at table"], [], BOTH_DOWN, "FAILED_GOAL_CONSTRAINT", None,
    ),
    "one_draw": (
        FETCH, {"apple": [WORK] * 9 + [ISLAND]}, [], [], [f"R1 Move {WORK}", "R1 Reach apple"], None,
        "ACTION_NOT_FEASIBLE",
    ),
}  # fmt: skip


def test_every_fault_has_its_case():
    assert {field.name for field in fields(Rules)} == {*FAULTS, "free_waiting"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_kept_as_released_and_mended_by_its_own_flag(fault, truth, plan):
    robots, starts, goals, chains, steps, kept, mended = FAULTS[fault]
    problem = Problem.read(truth(robots, starts, goals, chains))
    rows = plan(*steps)
    assert check_plan(problem, rows).code == kept
    verdict = check_steps(problem, steps_of(rows), replace(RELEASED, **{fault: False}))
    assert verdict.code == mended, verdict


def test_strict_mends_all_of_them_and_counts_waiting(truth, plan):
    record = truth(FETCH, {"apple": WORK}, ["apple at table"])
    rows = plan("", *FETCH_APPLE, "R1 Move table", "R1 Place table")
    assert check_plan(record, rows).num_steps == 5
    assert check_plan(record, rows, strict=True).num_steps == 6
    assert not any(getattr(STRICT, field.name) for field in fields(Rules))


def test_handover_and_close_work_under_the_strict_rules(truth, plan):
    record = truth({"R1": "fetch", "R2": "unitree_h1"}, {"apple": WORK, "cabinet": "room_cabinet"}, ["apple at table"])
    meet = ["R1 Move apple", "R1 Reach apple", "R1 Grasp apple | R2 Move R1", "R1 Handover apple, R2"]
    rows = plan(*meet, "R2 Move table", "R2 Place table")
    assert check_plan(record, rows).code == "RELEASED_CHECKER_RAISES"
    assert check_plan(record, rows, strict=True).ok
    assert check_plan(record, plan(*meet[:3], "R1 Handover apple, R2 | R2 Move table"), strict=True).code == (
        "ACTION_NOT_COMPATIBLE"
    )
    door = ["R1 Move cabinet", "R1 Reach cabinet", "R1 Open cabinet", "R1 Close cabinet"]
    assert check_plan(record, plan(*door), strict=True).code == "FAILED_GOAL_CONSTRAINT"
    hand_inside = [*door[:3], *["R2 Move apple", "R2 Reach apple", "R2 Grasp apple", "R2 Move cabinet"]]
    shut_on_it = check_plan(record, plan(*hand_inside, "R1 Close cabinet | R2 Place cabinet"), strict=True)
    assert shut_on_it.code == "ACTION_NOT_COMPATIBLE"


def test_a_robot_does_not_travel_with_what_another_takes_away(truth, plan):
    record = truth({"R1": "fetch", "R2": "unitree_h1"}, {"bowl": WORK, "apple": ISLAND}, ["bowl at table"])
    taken = ["R1 Move bowl | R2 Move bowl", "R1 Reach bowl", "R1 Grasp bowl", "R1 Move table", "R1 Place table"]
    verdict = check_plan(record, plan(*taken, "R2 Reach bowl"), strict=True)
    assert (verdict.code, verdict.step) == ("ACTION_NOT_FEASIBLE", 6)
    assert check_plan(record, plan(*taken, "R2 Move bowl", "R2 Reach bowl"), strict=True).ok


def test_verdicts_name_step_robot_and_reason(truth, plan):
    record = truth(FETCH, {"apple": WORK}, ["apple at table"])
    verdict = check_plan(record, plan("R1 Move apple", "R1 Grasp apple"))
    assert verdict.sentence == "step 2, R1 grasp apple: apple was not reached first"
    assert (verdict.feasible, verdict.complete, verdict.step) == (False, False, 2)
    verdict = check_plan(record, plan("R1 Move apple"))
    assert verdict.sentence == "at the end it is not so: apple is at table" and verdict.feasible
    assert "no robot 'spot'" in check_plan({**record, "robots": {"R1": "spot"}}, "[]").sentence
    assert check_plan({}, "[]").sentence == "ground_truth: no field 'robots'"
    assert check_plan(record, plan(*["R1 Move apple"] * 10_000)).code == "FAILED_GOAL_CONSTRAINT"


def test_a_verdict_is_one_line_whatever_a_plan_names():
    record = {"robots": FETCH, "init_pos": {}, "goal_constraints": [], "temporal_constraints": [], "time_steps": []}
    for name in ("a\nb", "a\x0bb", "a\u2028b"):
        plan = [{"step": 1, "actions": {"R1": ["Reach", name]}}]
        assert check_plan(record, plan).sentence == "step 1, R1 reach a b: there is no 'a b' here"


def test_null_padding_of_parquet_changes_nothing(truth, plan):
    record = truth(FETCH, {"apple": WORK}, ["apple at table"])
    padded = {
        **record,
        "robots": {**record["robots"], "R2": None},
        "init_pos": {**record["init_pos"], "R1": None, "pear_0": None},
        "goal_constraints": [[{**record["goal_constraints"][0][0], "check_pos_type": None}]],
    }
    rows = plan(*FETCH_APPLE, "R1 Move table", "R1 Place table")
    assert check_plan(padded, rows) == check_plan(record, rows) and check_plan(record, rows).ok


def test_released_gold_plans_are_right_under_both_rules(released_json):
    for name in ("cot/VIKI_L2_ground_truth_rebuilt.json.xz", "published/L2_ground_truth_rebuilt.json.xz"):
        rows = [row["ground_truth"] for row in released_json(name)]
        assert len(rows) > 100
        for truth in rows:
            for strict in (False, True):
                verdict = check_plan(truth, truth["time_steps"], strict=strict)
                assert verdict.ok, (truth["task_id"], verdict)


_WORDS = st.sampled_from(
    ["Move", "Reach", "Grasp", "Place", "Open", "Close", "Push", "Handover", "Interact", "apple", "cardboardbox",
     "sink", "cabinet", "knife", "R1", "R2", "R9", "table", WORK, "", "<", ",", "Fly"]
)  # fmt: skip
_STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "actions": st.dictionaries(
                st.sampled_from(["R1", "R2", "R3", "apple"]), st.lists(_WORDS, max_size=4), max_size=3
            )
        }
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(rows=_STEPS, strict=st.booleans(), seed=st.integers(0, 3))
def test_no_plan_makes_it_raise(rows, strict, seed):
    names = {"apple_0": [WORK, "R1"], "cardboardbox_1": ["groundA"], "sink_2": ["R2"], "cabinet_3": ["room_cabinet"]}
    names |= {"knife_4": ["cabinet"]}
    record = {
        "robots": {"R1": "unitree_h1", "R2": "panda", "R3": "anymal_c"}, "init_pos": names,
        "goal_constraints": [[{"type": "asset", "name": "pear", "is_satisfied": True, "status": {"pos.name": "sink"}}]],
        "temporal_constraints": [], "time_steps": [],
    }  # fmt: skip
    verdict = check_plan(record, rows, strict=strict, seed=seed)
    assert verdict.code in ERROR_CODES and verdict.sentence


@settings(max_examples=200, deadline=None)
@given(
    text=st.text() | st.text(alphabet="[]{}()'\":,-1e9<>/answeractionsR1Move\\\n", max_size=200), strict=st.booleans()
)
def test_no_text_makes_it_raise(text, strict):
    record = {"robots": FETCH, "init_pos": {}, "goal_constraints": [], "temporal_constraints": [], "time_steps": []}
    assert check_plan(record, text, strict=strict).code in (*ERROR_CODES, None)
    assert check_plan(record, f"<answer>{text}</answer>", strict=strict).code in (*ERROR_CODES, None)


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "-" * 10_000, "[" + "1," * 300_000 + "]", "(" * 500 + ")" * 500, "\0", "\ud800"]
)
def test_hostile_answers_are_unreadable(text):
    record = {"robots": FETCH, "init_pos": {}, "goal_constraints": [], "temporal_constraints": [], "time_steps": []}
    assert check_plan(record, text).code == "UNREADABLE_PLAN"
