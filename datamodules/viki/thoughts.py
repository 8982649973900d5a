"""What a demonstration thinks before it answers: what the picture shows, and what follows for the plan.

Everything in it can be seen in the picture or read in the instruction; it is written from the scene, not by a model.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .records import Record, RecordError
from .scene_description import SceneDescription
from .vocabulary import places, robots


def thoughts(record: Record) -> str:
    """The think block of a generated record; of level 3, where both hands begin and end.

    Raises:
        RecordError: if the record does not know its scene.
    """
    if record.level == 3:
        own, other = ast.literal_eval(str(record.ground_truth))
        return f"My hand goes from {own[0]} to {own[-1]}. My partner's goes from {other[0]} to {other[-1]}."
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
