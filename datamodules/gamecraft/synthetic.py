"""The synthetic set: a free camera in uniform motion, the same starts and motions rendered at several speeds.

After the paper's rendered set (arXiv 2506.17201, section 4.2): translations, rotations and composites, all equally
often, by a camera that clips into nothing and keeps its height.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from .actions import Chord
from .chord_policy import flyable, plan_chord
from .doom import DoomEngine, LevelEnded
from .doom_map import DoomMap
from .episode import Episode
from .take import Take
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
    made, groups = 0, -(-unit.num_episodes // len(SPEEDS))
    for _ in range(_ATTEMPTS * groups):
        spot = world.draw_point(rng, 64.0, walls_only=True) if made < unit.num_episodes else None
        if spot is None:
            return
        x, y, angle_deg = int(spot[0]), int(spot[1]), float(rng.uniform(0, 360))
        draw_seed = int(rng.integers(2**31))
        floor = float(world.floor_S[world.sector_at(spot[None])[0]])
        episodes: list[Episode] = []
        fault = None
        for speed in SPEEDS:
            take, draws = Take(engine, unit.num_clips), np.random.default_rng(draw_seed)
            try:
                fault = None if engine.place(x, y, angle_deg) else "stuck"
                while fault is None and len(take.chords) < unit.num_clips:
                    chord = plan_chord(
                        draws,
                        engine.pose(),
                        partial(_free, world, floor, view_height_of(unit)),
                        engine.limits,
                        draw=partial(_motion, speed),
                    )
                    take.hold(chord)
                    fault = take.fault()
            except LevelEnded:
                engine.load(unit.map, level_seed)
                fault = "ended"
            if fault is not None:
                rejected[fault] += 1
                break
            meta = {"map": unit.map, "seed": unit.seed, "kind": "synthetic", "monsters": False}
            meta |= {"speed": speed, "view_height": view_height_of(unit)}
            episodes.append(take.episode(unit.key(made + len(episodes)), world, meta))
        if fault is None:
            episodes = episodes[: unit.num_episodes - made]
            yield from episodes
            made += len(episodes)


def _free(world: DoomMap, floor: float, view_height: float, path_P2: np.ndarray) -> bool:
    return flyable(world, path_P2, floor, view_height)


def _motion(fraction: float, draws: np.random.Generator, _: object) -> Chord:
    """One of `MOTIONS` at a speed."""
    return Chord.of(**{key: fraction for key in MOTIONS[draws.integers(len(MOTIONS))]})
