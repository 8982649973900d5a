"""Where things stand in the picture of a task: a scene description drawn from a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy

from .scene_description import NUM_CAMERAS, NUM_LIGHTS, Pose, SceneDescription, SceneObject, SceneRobot
from .vocabulary import objects, places

_MAX_CLUTTER = 2
_CLUTTER_PLACES = ("kitchen work area", "kitchen island area")


def stage(
    draw: numpy.random.Generator, layouts: Sequence[int], styles: Sequence[int], team: Mapping[str, str],
    idle: Sequence[str], starts: Mapping[str, str], beside: Mapping[str, str], mentioned: Sequence[str],
) -> SceneDescription:  # fmt: skip
    """Draw a scene.

    Args:
        draw: where the chance comes from.
        layouts: layouts to choose from.
        styles: styles to choose from.
        team: active robots, R1 -> type.
        idle: types of robots that only stand there.
        starts: thing -> the area that it starts in.
        beside: robot -> fixture that it stands beside.
        mentioned: further names that the task speaks of: places have to be seen, things do not serve as clutter.
    """
    types = [(agent, name) for agent, name in team.items()] + [("", name) for name in idle]
    robots = tuple(
        SceneRobot(name, agent, _pose(draw, slot, len(types), turn=40.0), beside.get(agent, ""))
        for (agent, name), slot in zip(types, draw.permutation(len(types)), strict=True)
    )
    where = {name: _place_of(area, team) for name, area in starts.items() if name in objects()}
    clutter = _clutter(draw, {*where, *mentioned})
    items = [(name, place, True) for name, place in where.items()] + [(name, place, False) for name, place in clutter]
    slots = {place: list(draw.permutation(max(3, n))) for place, n in Counter(place for _, place, _ in items).items()}
    placed = tuple(
        SceneObject(name, place, _pose(draw, slots[place].pop(), max(3, sum(p == place for _, p, _ in items))), needed)
        for name, place, needed in items
    )
    seen = {*starts, *mentioned, *(place for _, place, _ in items)}
    fixtures = tuple(name for name in places() if name in seen)
    return SceneDescription(
        int(draw.choice(layouts)), int(draw.choice(styles)), int(draw.integers(NUM_LIGHTS)),
        int(draw.integers(NUM_CAMERAS)), _jitter(draw),
        robots, placed, fixtures, tuple(name for name, place, _ in items if place == "cabinet"),
        int(draw.integers(2**31)),
    )  # fmt: skip


def _jitter(draw: numpy.random.Generator) -> tuple[float, float, float]:
    sideways, up, along = (round(float(x), 3) for x in draw.uniform(-1, 1, 3))
    return sideways, up, along


def _pose(draw: numpy.random.Generator, slot: int, num_slots: int, turn: float = 180.0) -> Pose:
    """Somewhere in one of `num_slots` stripes from left to right, so that nothing stands in another's way."""
    u = (slot + 0.5 + draw.uniform(-0.2, 0.2)) / num_slots
    return Pose(round(float(u), 3), round(float(draw.uniform(0.2, 0.8)), 3), round(float(draw.uniform(-turn, turn)), 1))


def _place_of(area: str, team: Mapping[str, str]) -> str:
    """The place of a scene for an area of a record: `groundA` is the floor."""
    if area in team or area in places():
        return area
    return next(place.name for place in places().values() if place.kind == "floor" and place.spot == area)


def _clutter(draw: numpy.random.Generator, used: set[str]) -> list[tuple[str, str]]:
    """Up to two things that the task does not speak of, on the counters; no dish and no box, which might be used."""
    names = [o.name for o in objects().values() if o.name not in used and o.kind not in ("dish", "box", "board")]
    chosen = draw.choice(len(names), int(draw.integers(_MAX_CLUTTER + 1)), replace=False)
    return [(names[i], _CLUTTER_PLACES[int(draw.integers(2))]) for i in chosen]
