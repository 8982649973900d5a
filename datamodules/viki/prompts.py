"""System prompts of the three levels in our own words; they ask for the released answer forms."""

from __future__ import annotations

from collections.abc import Mapping

from .records import Record
from .vocabulary import PRIMITIVES, robots

_MEANING = {
    "Move": "go to a thing, a robot or a place",
    "Reach": "stretch a hand out to the thing that the robot stands at",
    "Grasp": "take what was reached",
    "Place": "put what is in the hands onto or into something that the robot stands at",
    "Open": "open a cabinet or drawer that was reached, with a free hand",
    "Close": "close it again",
    "Push": "push a box that the robot stands at to another place or robot",
    "Interact": "use or switch on a thing, or inspect it",
}
_THINK = "First think, between <think> and </think>. Then answer, between <answer> and </answer>: "


def activation_prompt() -> str:
    """Level 1: which of the robots in the picture should act."""
    kinds = "\n".join(f"- {robot.name}: {robot.looks}" for robot in robots().values())
    return (
        f"A kitchen with some of these robots:\n{kinds}\n"
        "See which of them are in the picture, and choose those that the task needs and no other.\n"
        f"{_THINK}the names as a Python list, such as ['fetch', 'stompy']."
    )


def planning_prompt(team: Mapping[str, str]) -> str:
    """Level 2: a plan for the robots of the team, R1 -> type."""
    types = sorted(set(team.values()))
    lines = [f"- {name}: {_MEANING[name]}" for name in PRIMITIVES if name in _MEANING]
    able = [f"- {name} ({robots()[name].looks}): {', '.join(robots()[name].primitives)}" for name in types]
    return (
        "You plan for the robots of a kitchen that the picture shows. In one step every robot does at most one action; "
        "robots act side by side. Use as few steps as you can.\n"
        "Actions, [action, target] or [Push, box, where]:\n" + "\n".join(lines) + "\n"
        "The robots: " + ", ".join(f"{agent} is a {name}" for agent, name in sorted(team.items())) + "\n"
        "What they can do:\n" + "\n".join(able) + "\n"
        f"{_THINK}a JSON list of the steps, such as\n"
        '[{"step": 1, "actions": {"R1": ["Move", "cup"], "R2": ["Move", "spoon"]}}, '
        '{"step": 2, "actions": {"R1": ["Reach", "cup"]}}]'
    )


def trajectory_prompt() -> str:
    """Level 3: the ways of two arms in the picture that one of them sees."""
    return (
        "The picture is what a robot arm sees: the near arm is you, the other one your partner. For the task given, "
        "say how the tips of both arms move: five points [x, y] in pixels for you, then five for your partner.\n"
        f"{_THINK}[[[x, y], [x, y], [x, y], [x, y], [x, y]], [[x, y], [x, y], [x, y], [x, y], [x, y]]]"
    )


def short_prompt(record: Record) -> str:
    """A record's question in a few words, for policies that are trained on nothing else; it tells no more than the full
    one: at level 2 who is in the team.
    """
    if record.level == 1:
        return "which robots"
    if record.level == 3:
        return "trajectories"
    assert isinstance(record.ground_truth, Mapping), "a record of level 2 has a task"
    return "plan for " + ", ".join(f"{agent} {name}" for agent, name in sorted(record.ground_truth["robots"].items()))
