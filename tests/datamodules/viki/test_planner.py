"""The planner finds what trying everything finds, and no template is longer than need be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.viki.actions import ARITY, Command, clash, refusal
from fulgurite.datamodules.viki.chains import follow, prepared, unmet
from fulgurite.datamodules.viki.checker import check_plan
from fulgurite.datamodules.viki.effects import apply
from fulgurite.datamodules.viki.families import families
from fulgurite.datamodules.viki.generator import draw_task
from fulgurite.datamodules.viki.patterns import minimum
from fulgurite.datamodules.viki.planner import NoPlanError, shortest_plan
from fulgurite.datamodules.viki.plans import rows_of
from fulgurite.datamodules.viki.problem import Problem
from fulgurite.datamodules.viki.rules import STRICT
from fulgurite.datamodules.viki.state import State

WORK, ISLAND = "kitchen work area", "kitchen island area"


def least_by_trying_everything(problem: Problem, most: int) -> int | None:
    """Steps of the shortest plan, by breadth first over every command with every target; handovers left out."""
    names: list[int | str] = [*range(len(problem.assets)), *(-1 - i for i in range(len(problem.agents))), "table", WORK]
    commands = [
        [
            Command(name, agent, targets)
            for name in sorted(primitives - {"handover"})
            for targets in itertools.product(names, repeat=ARITY[name])
        ]
        for agent, primitives in enumerate(problem.primitives)
    ]
    level = {State.start(problem, tuple(choice[0] for choice in problem.starts)).key(): None}
    states = [State.start(problem, tuple(choice[0] for choice in problem.starts))]
    for steps in range(most + 1):
        if any(unmet(state, STRICT) is None for state in states):
            return steps
        after = []
        for state in states:
            held = prepared(state)
            allowed = [[None, *(c for c in ours if refusal(state, c, STRICT) is None)] for ours in commands]
            for chosen in itertools.product(*allowed):
                acts = [c for c in chosen if c is not None]
                if not acts or clash(state, acts, STRICT):
                    continue
                new = state.copy()
                apply(new, acts, STRICT)
                if follow(new, held, STRICT) is None and new.key() not in level:
                    level[new.key()] = None
                    after.append(new)
        states = after
    return None


CASES = {
    "carry": ({"R1": "fetch"}, {"apple": WORK, "plate": ISLAND}, ["apple at plate"], []),
    "out of the cabinet": ({"R1": "unitree_h1"}, {"apple": "cabinet", "cabinet": "spot"}, ["apple at table"], []),
    "two hands": ({"R1": "unitree_h1"}, {"apple": WORK, "pear": WORK}, ["apple at table", "pear at table"], []),
    "one hand": ({"R1": "fetch"}, {"apple": WORK, "pear": ISLAND}, ["apple at table", "pear at table"], []),
    "side by side": (
        {"R1": "fetch", "R2": "fetch"}, {"apple": WORK, "pear": WORK}, ["apple at table", "pear at table"], [],
    ),
    "wash": ({"R1": "fetch"}, {"pear": WORK, "sink": "room"}, ["sink on"], [["pear at sink", "sink on"]]),
    "push and unload": (
        {"R1": "anymal_c", "R2": "panda"}, {"pear": "cardboardbox", "cardboardbox": "groundA", "sink": "R2"},
        ["pear at sink"], [],
    ),
    "nothing to do": ({"R1": "fetch"}, {"apple": "table"}, ["apple at table"], []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_short_as_what_trying_everything_finds(case, truth):
    robots, starts, goals, chains = CASES[case]
    problem = Problem.read(truth(robots, starts, goals, chains))
    plan = shortest_plan(problem)
    assert len(plan) == least_by_trying_everything(problem, 10)
    if plan:
        assert check_plan(problem, rows_of(plan), strict=True).ok
    assert len(minimum(problem)) == len(plan)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    robots=st.lists(st.sampled_from(["fetch", "unitree_h1", "anymal_c", "panda"]), min_size=1, max_size=1),
    places=st.lists(st.sampled_from([WORK, "table", "cabinet", "bowl", "R1"]), min_size=3, max_size=3),
    goals=st.lists(
        st.sampled_from(["apple at table", "apple at bowl", "bowl at table", "knife on", "knife at bowl"]),
        min_size=1, max_size=2, unique=True,
    ),
    ordered=st.booleans(),
)  # fmt: skip
def test_random_small_tasks(truth, robots, places, goals, ordered):
    starts = {
        "apple": places[0],
        "knife": places[1],
        "bowl": WORK if places[2] == "bowl" else places[2],
        "cabinet": "x",
    }
    chains = [goals] if ordered and len(goals) == 2 else []
    problem = Problem.read(truth({f"R{i + 1}": name for i, name in enumerate(robots)}, starts, goals, chains))
    least = least_by_trying_everything(problem, 7)
    try:
        assert len(shortest_plan(problem, max_steps=7)) == least
    except NoPlanError:
        assert least is None


def test_no_template_is_longer_than_the_planner_s_plan():
    seen = {}
    for split, index in itertools.product(("train", "heldout_family"), range(160)):
        task = draw_task(split, index, seed=3)
        seen.setdefault(task.family.name, task)
    assert set(seen) == set(families())
    for name, task in seen.items():
        assert len(task.truth["time_steps"]) == len(families()[name].steps) == len(minimum(Problem.read(task.truth)))
