"""What a demonstration thinks before it answers: what the picture shows, and what follows for the plan.

Everything in it can be seen in the picture or read in the instruction; it is written from the scene, not by a model.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from .records import Record, RecordError
from .scene_description import SceneDescription
from .vocabulary import places, robots

_SHARE = re.compile(r"bring the ([a-z ]+?) to the ([a-z ]+?)(?= while\b|[.,;])")
"""What an arm has to bring where, as datamodules/viki/arms.py words it: first one's own share, then the partner's."""
_ARMS = (("My", "I bring"), ("My partner's", "My partner brings"))


def thoughts(record: Record) -> str:
    """The think block of a generated record; of level 3, where things and hands are.

    Raises:
        RecordError: if the record does not know its scene.
    """
    if record.level == 3:
        return _about_the_ways(record)
    if record.scene is None:
        raise RecordError("no scene: only generated records can be thought about")
    seen = _what_is_seen(record.scene)
    if isinstance(record.ground_truth, Mapping):
        return f"{seen}\n{_about_the_plan(record.ground_truth)}"
    chosen = ast.literal_eval(record.ground_truth)
    others = sorted({robot.name for robot in record.scene.robots} - set(chosen))
    lines = [f"{name} is {robots()[name].looks}." for name in sorted({robot.name for robot in record.scene.robots})]
    rest = f" {', '.join(others)} can stand by." if others else ""
    return f"{seen}\n{' '.join(lines)}\nThe task takes {', '.join(chosen)}.{rest}"


def _what_is_seen(scene: SceneDescription) -> str:
    names = ", ".join(robot.name for robot in scene.robots)
    where: dict[str, list[str]] = {}
    for item in scene.objects:
        where.setdefault(item.place, []).append(item.name)
    lines = [f"The picture shows {names}."]
    lines += [f"{_at(place).capitalize()}: {', '.join(things)}." for place, things in sorted(where.items())]
    if "cabinet" in scene.fixtures and "cabinet" not in where:
        lines.append("The cabinet is empty.")
    if "table" in scene.fixtures and "table" not in where:
        lines.append("The table is empty.")
    return " ".join(lines)


def _at(place: str) -> str:
    if place not in places():
        return f"beside {place}"
    return f"in the {place}" if places()[place].kind == "fixture" else f"on the {place}"


def _about_the_plan(truth: Mapping[str, object]) -> str:
    steps = truth["time_steps"]
    assert isinstance(steps, list)
    lines: dict[str, list[str]] = {}
    for row in steps:
        for agent, words in row["actions"].items():
            if words:
                lines.setdefault(agent, []).append(" ".join(words))
    parts = [f"{agent}: {', '.join(actions)}." for agent, actions in sorted(lines.items())]
    return f"{' '.join(parts)} That takes {len(steps)} steps."


def _about_the_ways(record: Record) -> str:
    """Where what each arm brings, its target and its hand are: the second, last and first point of its way. A policy
    that starts from nothing finds a thing by its name there, which a list of points alone would not teach it.
    """
    ways = ast.literal_eval(str(record.ground_truth))
    shares = _SHARE.findall(record.instruction)
    lines = []
    for (whose, brings), way, share in zip(_ARMS, ways, shares or (None, None), strict=True):
        if share:
            lines.append(f"{brings} the {share[0]} at {way[1]} to the {share[1]} at {way[-1]}.")
        lines.append(f"{whose} hand is at {way[0]}.")
    return " ".join(lines)
