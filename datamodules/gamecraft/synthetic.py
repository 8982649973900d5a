"""The synthetic set: a free camera in uniform motion, the same starts and motions rendered at several speeds.

After the paper's rendered set (arXiv 2506.17201, section 4.2): translations, rotations and composites, all equally
often, by a camera that clips into nothing and keeps its height.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from .actions import Chord
from .chord_policy import flyable, plan_chord
from .doom import DoomEngine, LevelEnded
from .episode import Episode
from .take import Engine, Take
from .units import Unit

MOTIONS: tuple[tuple[str, ...], ...] = (
    *((key,) for key in ("w", "s", "a", "d", "left", "right", "up", "down")),
    *product(("w", "s", "a", "d"), ("left", "right")),
    *product(("w", "s"), ("a", "d")),
    *product(("w", "s", "left", "right"), ("up", "down")),
)
"""Single keys and composites of two; each as likely as the others."""
SPEEDS = (0.35, 0.65, 1.0)
VIEW_HEIGHTS = (24, 41, 64, 88)
"""Heights of the camera above the floor of its start, map units."""
_ATTEMPTS = 8


def view_height_of(unit: Unit) -> int:
    """The camera's height in a unit."""
    return VIEW_HEIGHTS[unit.index % len(VIEW_HEIGHTS)]


def record_flights(engine: DoomEngine, unit: Unit, rejected: Counter[str]) -> Iterator[Episode]:
    """Episodes of a unit: three speeds from each start, the motions drawn alike; each a pure function of the unit.

    Args:
        engine: a flying one of the unit's game and `view_height_of(unit)`.
        unit: what to record.
        rejected: counts, by filter, what was thrown away; added to.
    """
    rng = unit.generator()
    level_seed = int(rng.integers(2**31))
    world = engine.load(unit.map, level_seed)
    height = view_height_of(unit)
    made = 0
    for _ in range(_ATTEMPTS * -(-unit.num_episodes // len(SPEEDS))):
        spot = world.draw_point(rng, 64.0, walls_only=True) if made < unit.num_episodes else None
        if spot is None:
            return
        angle_deg, draw_seed = float(rng.uniform(0, 360)), int(rng.integers(2**31))
        floor = float(world.floor_S[world.sector_at(spot[None])[0]])
        try:
            takes = fly_at_all_speeds(
                engine,
                unit.num_clips,
                partial(engine.place, int(spot[0]), int(spot[1]), angle_deg),
                partial(flyable, world, floor=floor, view_height=height),
                draw_seed,
                rejected,
            )
        except LevelEnded:
            engine.load(unit.map, level_seed)
            rejected["ended"] += 1
            continue
        for take, speed in list(zip(takes, SPEEDS, strict=False))[: unit.num_episodes - made]:
            yield take.episode(unit.key(made), world, flight_meta(unit, speed, height))
            made += 1


def fly_at_all_speeds(
    engine: Engine,
    num_clips: int,
    start: Callable[[], bool],
    fits: Callable[[np.ndarray], bool],
    draw_seed: int,
    rejected: Counter[str],
) -> list[Take]:
    """One take for each of `SPEEDS`, from one start; none if a filter refuses one of them.

    Args:
        engine: the engine.
        num_clips: clips a take.
        start: puts the camera where the takes start, and says whether that went well.
        fits: whether a path [P,2] stays in free space.
        draw_seed: of the motions; those of the three takes are the same as far as space allows.
        rejected: counts, by filter, what was thrown away; added to.
    """
    takes = []
    for speed in SPEEDS:
        take, draws = Take(engine, num_clips), np.random.default_rng(draw_seed)
        fault = None if start() else "stuck"
        while fault is None and len(take.chords) < num_clips:
            take.hold(plan_chord(draws, engine.pose(), fits, engine.limits, draw=partial(_motion, speed)))
            fault = take.fault()
        if fault is not None:
            rejected[fault] += 1
            return []
        takes.append(take)
    return takes


def flight_meta(unit: Unit, speed: float, view_height: float) -> dict[str, Any]:
    """What the `meta` of a synthetic episode says."""
    meta = {"map": unit.map, "seed": unit.seed, "kind": "synthetic", "monsters": False}
    return meta | {"speed": speed, "view_height": view_height}


def _motion(fraction: float, draws: np.random.Generator, _: float) -> Chord:
    """One of `MOTIONS` at a speed."""
    return Chord.of(**{key: fraction for key in MOTIONS[draws.integers(len(MOTIONS))]})
