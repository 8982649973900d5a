"""Template families and the tasks that come of them (arXiv 2506.09049, section 3 and appendix on templates)."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .vocabulary import FOLDER, areas, places, robots

COUNTERS = ("kitchen work area", "kitchen island area")
ROLES = "ABC"
_IDLE_KINDS = ("dog", "arm")


@dataclass(frozen=True)
class Family:
    """One sub-family of tasks. Texts hold slots in braces.

    Attributes:
        name: `10-1`: family, then variant.
        title: what it is about.
        wordings: instructions to choose from; families that only the picture tells apart share them.
        roles: kinds of robots that act, in the order A, B, C.
        idle: kinds of robots that may stand by; none that could do the work as well.
        slots: slot -> what it may be filled with.
        starts: thing -> where it may start; see families.yaml.
        steps: the gold plan, `A Move cabinet | B Move {dish}`.
        goals: `{food} at {dish}` or `sink on`.
        order: chains of facts that have to come true one after the other; ` + ` joins facts.
    """

    name: str
    title: str
    wordings: tuple[str, ...]
    roles: tuple[str, ...]
    idle: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]
    starts: Mapping[str, str]
    steps: tuple[str, ...]
    goals: tuple[str, ...]
    order: tuple[tuple[str, ...], ...]

    @property
    def number(self) -> int:
        """The family without its variant."""
        return int(self.name.partition("-")[0])

    def fillings(self) -> list[dict[str, str]]:
        """Every way to fill the slots, in a fixed order."""
        return [dict(zip(self.slots, chosen, strict=True)) for chosen in itertools.product(*self.slots.values())]

    def start_areas(self, filling: Mapping[str, str], agents: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """For each thing, the areas that it may start in.

        Args:
            filling: slot -> what fills it.
            agents: role -> robot, {"A": "R2", ...}.
        """
        taken = {filling[s] for s in filling if filling[s] in areas()}
        found: dict[str, tuple[str, ...]] = {}
        for thing, where in self.starts.items():
            name = thing.format(**filling)
            if where == "counters":
                found[name] = COUNTERS
            elif where == "other areas":
                found[name] = tuple(a for a in COUNTERS if a not in taken)
            elif where == "its spot":
                found[name] = (places()[name].spot,)
            elif where.startswith("with "):
                found[name] = (agents[where[5:]],)
            else:
                found[name] = (places()[where].spot,) if places()[where].kind == "floor" else (where,)
        return found

    def plan(self, filling: Mapping[str, str], agents: Mapping[str, str]) -> list[dict[str, str]]:
        """The template's plan as steps {"R1": "Move,apple"}."""
        found = []
        for step in self.steps:
            commands = {}
            for part in step.split(" | "):
                role, primitive, target = part.split(" ", 2)
                words = [primitive, target.format(**filling)]
                if primitive == "Push":  # of a thing to a robot
                    thing, _, other = words[1].rpartition(" ")
                    words[1:] = [thing, agents[other]]
                commands[agents[role]] = ",".join(words)
            found.append(commands)
        return found


@functools.cache
def families() -> dict[str, Family]:
    """All sub-families by name."""
    wordings = yaml.safe_load((FOLDER / "wordings.yaml").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "families.yaml").read_text(encoding="utf-8"))
    return {
        name: Family(
            name, row["name"], tuple(wordings[row["wordings"]]), tuple(row["roles"]),
            tuple(row.get("idle", _IDLE_KINDS)), {s: tuple(v) for s, v in row.get("slots", {}).items()}, row["starts"],
            tuple(row["steps"]), tuple(row["goals"]), tuple(map(tuple, row.get("order", ()))),
        )
        for name, row in rows.items()
    }  # fmt: skip


def facts_of(text: str, filling: Mapping[str, str]) -> list[dict[str, Any]]:
    """Facts in the released form: `{food} at {dish} + sink on` is two of them."""
    found = []
    for part in text.format(**filling).split(" + "):
        match = re.fullmatch(r"(.+) at (.+)", part)
        name, status = (
            (match[1], {"pos.name": match[2]}) if match else (part.removesuffix(" on"), {"is_activated": True})
        )
        found.append({"type": "asset", "name": name, "is_satisfied": True, "status": status})
    return found


def capable(steps: tuple[str, ...], role: str) -> set[str]:
    """Types of robots that can do what a role does: they have its primitives, and hands enough, and move if it has to.

    A robot that opens, uses a fixture, or grasps once more while its hands are full needs another hand.
    """
    needed, most, held = set(), 0, 0
    for part in itertools.chain(*(step.split(" | ") for step in steps)):
        actor, primitive, _ = part.split(" ", 2)
        if actor != role:
            continue
        needed.add(primitive)
        if primitive == "Grasp":
            held += 1
        most = max(most, held + (primitive == "Open"))
        if primitive == "Place":
            held = 0
    return {r.name for r in robots().values() if needed.issubset(r.primitives) and r.hands >= most}


def activation(family: Family, visible: list[str]) -> list[str]:
    """Which of the robots in the picture have to act: gold of level 1, one type a role, in the order of the roles.

    Args:
        family: the task's sub-family.
        visible: types of all robots in the picture.

    Raises:
        ValueError: if no choice, or more than one set of types, can do it.
    """
    choices = [capable(family.steps, role) for role in ROLES[: len(family.roles)]]
    found: dict[tuple[str, ...], list[str]] = {}
    for chosen in itertools.permutations(range(len(visible)), len(choices)):
        types = [visible[i] for i in chosen]
        if all(t in able for t, able in zip(types, choices, strict=True)):
            found.setdefault(tuple(sorted(types)), types)
    if len(found) != 1:
        raise ValueError(f"{family.name}: {len(found)} ways to choose among {', '.join(visible)}")
    return next(iter(found.values()))
