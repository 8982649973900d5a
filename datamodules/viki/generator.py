"""Records drawn from the families: level 1 and 2 with gold that was checked, and what their pictures show.

Record k of a split depends on the seed, the split and k alone. Splits: train and val; test (in-distribution: fillings
of slots that training never sees, where a family has enough of them); heldout_scene (kitchens and styles that training
never sees); heldout_family (family 11); heldout_pair (Stompy with Fetch).
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from .checker import check_plan
from .families import ROLES, Family, activation, facts_of, families
from .patterns import minimum
from .plans import Step, rows_of
from .problem import Problem
from .prompts import activation_prompt, planning_prompt
from .records import Record
from .scene_description import NUM_LAYOUTS, NUM_STYLES, SceneDescription
from .staging import stage
from .vocabulary import robots

SPLITS = ("train", "val", "test", "heldout_scene", "heldout_family", "heldout_pair")
HELDOUT_FAMILY = 11
HELDOUT_LAYOUTS, HELDOUT_STYLES = (8, 9), (10, 11)
HELDOUT_PAIR = frozenset({"stompy", "fetch"})
_MIN_FILLINGS = 10  # with fewer, training and test share them and differ in the scene
_TEST_SHARE = 5  # every fifth filling is kept from training


class GoldError(RuntimeError):
    """A task whose gold is not what it should be: a fault of the families, not of a user."""


@dataclass(frozen=True)
class Task:
    """One task before it becomes a record.

    Attributes:
        family: its sub-family.
        filling: slot -> what fills it.
        team: active robots, R1 -> type.
        idle: types of robots that only stand there.
        starts: thing -> area.
        truth: ground truth in the released form, gold plan included.
        scene: what the pictures show.
    """

    family: Family
    filling: Mapping[str, str]
    team: Mapping[str, str]
    idle: tuple[str, ...]
    starts: Mapping[str, str]
    truth: Mapping[str, Any]
    scene: SceneDescription


def draw_record(level: int, split: str, index: int, seed: int, attempt: int = 0, like: str = "") -> Record:
    """One record without pictures; the same arguments give the same record.

    Args:
        level: 1 or 2.
        split: of `SPLITS`.
        index: its number in the split, from 0.
        seed: of the data set.
        attempt: another number draws another scene for the same task, where a picture hid something.
        like: split by whose rules it is drawn; its own unless given.

    Raises:
        GoldError: if the family's gold can't be carried out, or is longer than need be and the planner finds none.
    """
    task = draw_task(split, index, seed, attempt, like)
    if level == 1:
        types = activation(task.family, [*task.team.values(), *task.idle])
        gold: str | Mapping[str, Any] = str(sorted(types))
        system = activation_prompt()
    else:
        gold, system = task.truth, planning_prompt(task.team)
    return Record(
        level, system, task.truth["description"], gold, split=split, index=index, family=task.family.name,
        scene=task.scene,
    )  # fmt: skip


def draw_task(split: str, index: int, seed: int, attempt: int = 0, like: str = "") -> Task:
    """The task behind a record; see `draw_record`."""
    draw = numpy.random.default_rng((seed, zlib.crc32(split.encode()), index))
    rule = like or split
    choices = sub_families(rule)
    family = choices[int(draw.integers(len(choices)))]
    filling = dict(_pick(draw, fillings(family.name, rule)))
    agents = [f"R{i + 1}" for i in draw.permutation(len(family.roles))]
    roles = dict(zip(ROLES, agents, strict=False))
    types = _types(draw, family, rule)
    team = {agent: name for agent, name in sorted(zip(agents, types, strict=True))}
    idle = tuple(_pick(draw, _of_kind(kind)) for kind in family.idle if draw.random() < 0.5)
    starts = {name: _pick(draw, where) for name, where in family.start_areas(filling, roles).items()}
    wording = _pick(draw, family.wordings).format(**filling)
    scene_draw = numpy.random.default_rng((seed, zlib.crc32(split.encode()), index, 1 + attempt))
    held_out = rule == "heldout_scene"
    layouts = HELDOUT_LAYOUTS if held_out else [n for n in range(NUM_LAYOUTS) if n not in HELDOUT_LAYOUTS]
    styles = HELDOUT_STYLES if held_out else [n for n in range(NUM_STYLES) if n not in HELDOUT_STYLES]
    beside = {roles[r]: name for name, where in family.starts.items() if name == "sink" and (r := where[5:]) in roles}
    scene = stage(scene_draw, layouts, styles, team, idle, starts, beside, _mentioned(family, filling))
    truth = _ground_truth(family, filling, roles, team, idle, starts, wording, scene.layout, f"{index}_{family.name}")
    return Task(family, filling, team, idle, starts, truth, scene)


@functools.cache
def sub_families(split: str) -> tuple[Family, ...]:
    """Sub-families that a split draws from, all equally often."""
    found = [f for f in families().values() if (f.number == HELDOUT_FAMILY) == (split == "heldout_family")]
    if split == "heldout_pair":
        found = [f for f in found if sorted(f.roles) == ["humanoid", "wheeled"]]
    return tuple(found)


@functools.cache
def fillings(family: str, split: str) -> tuple[Mapping[str, str], ...]:
    """Ways to fill a sub-family's slots in a split; where there are few, every split has them all."""
    found = families()[family].fillings()
    if len(found) < _MIN_FILLINGS or split == "heldout_family":
        return tuple(found)
    kept = split not in ("train", "val")
    chosen = [f for f in found if (_digest(family, f) % _TEST_SHARE == 0) == kept]
    return tuple(chosen or found)


def _digest(family: str, filling: Mapping[str, str]) -> int:
    text = family + ":" + ",".join(filling.values())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _pick(draw: numpy.random.Generator, items: Any) -> Any:
    return items[int(draw.integers(len(items)))]


def _of_kind(kind: str) -> list[str]:
    return [robot.name for robot in robots().values() if robot.kind == kind]


def _types(draw: numpy.random.Generator, family: Family, split: str) -> list[str]:
    """A type for each role; Stompy with Fetch only where they are held out."""
    types = [str(_pick(draw, _of_kind(kind))) for kind in family.roles]
    if split == "heldout_pair":
        return ["stompy" if kind == "humanoid" else "fetch" for kind in family.roles]
    if HELDOUT_PAIR.issubset(types):
        return ["unitree_h1" if name == "stompy" else name for name in types]
    return types


def _mentioned(family: Family, filling: Mapping[str, str]) -> list[str]:
    """Names in the wordings: places that have to be seen, and whatever must not lie about as clutter."""
    words = [value for value in filling.values()]
    for goal in (*family.goals, *(fact for chain in family.order for fact in chain)):
        for fact in facts_of(goal, filling):
            words += [fact["name"], *(v for v in fact["status"].values() if isinstance(v, str))]
    return words


def _ground_truth(
    family: Family, filling: Mapping[str, str], roles: Mapping[str, str], team: Mapping[str, str],
    idle: tuple[str, ...], starts: Mapping[str, str], wording: str, layout: int, task_id: str,
) -> dict[str, Any]:  # fmt: skip
    init_pos: dict[str, list[str]] = {f"{name}_{i}": [area] for i, (name, area) in enumerate(starts.items())}
    arms = [roles[r] for r, kind in zip(ROLES, family.roles, strict=False) if kind == "arm"]
    init_pos |= {agent: [f"panda{'BA'[i]}"] for i, agent in enumerate(arms)}  # as the released records call it
    truth: dict[str, Any] = {
        "description": wording, "task_id": task_id, "task_name": family.title, "layout_id": layout,
        "robots": dict(team), "idle_robots": list(idle), "init_pos": init_pos,
        "goal_constraints": [facts_of(goal, filling) for goal in family.goals],
        "temporal_constraints": [[facts_of(fact, filling) for fact in chain] for chain in family.order],
        "time_steps": [],
    }  # fmt: skip
    truth["time_steps"] = rows_of(_gold(truth, family.plan(filling, roles)))
    return truth


def _gold(truth: Mapping[str, Any], template: list[Step]) -> list[Step]:
    """The template's plan if none is shorter, else the planner's.

    Raises:
        GoldError: if the checker, as released or strict, refuses it.
    """
    problem = Problem.read(truth)
    shortest = minimum(problem)
    plan = template if len(template) == len(shortest) else shortest
    for strict in (False, True):
        verdict = check_plan(problem, rows_of(plan), strict=strict)
        if not verdict.ok:
            raise GoldError(
                f"{truth['task_id']}: gold fails ({'strict' if strict else 'released'}): {verdict.sentence}"
            )
    return plan
