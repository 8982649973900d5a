"""Recorded play: a player that walks a Doom map, one chord a chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .chord_policy import draw_heading, plan_chord, walkable
from .doom import DoomEngine, LevelEnded
from .episode import Episode
from .take import Take
from .units import Unit

_ATTEMPTS = 6  # starts tried for each episode wanted
_CLEARANCE = 28.0  # from what blocks, at a start, map units


def record_walks(engine: DoomEngine, unit: Unit, rejected: Counter[str]) -> Iterator[Episode]:
    """Episodes of a unit from random starts, each a pure function of the unit.

    Args:
        engine: a walking one of the unit's game.
        unit: what to record. Fewer episodes come out if the map has too few good starts.
        rejected: counts, by filter, what was thrown away; added to.
    """
    rng = unit.generator()
    level_seed = int(rng.integers(2**31))
    world = engine.load(unit.map, level_seed)
    made = 0
    for _ in range(_ATTEMPTS * unit.num_episodes):
        spot = world.draw_point(rng, _CLEARANCE) if made < unit.num_episodes else None
        if spot is None:
            return
        x, y = int(spot[0]), int(spot[1])
        pitch_deg = 0.0 if rng.random() < 0.7 else float(rng.uniform(-15, 15))
        take = Take(engine, unit.num_clips)
        try:
            fault = None if engine.place(x, y, draw_heading(rng, world, x, y), pitch_deg) else "stuck"
            while fault is None and len(take.chords) < unit.num_clips:
                take.hold(plan_chord(rng, engine.pose(), lambda path_P2: walkable(world, path_P2), engine.limits))
                fault = take.fault()
        except LevelEnded:
            engine.load(unit.map, level_seed)
            fault = "ended"
        if fault is not None:
            rejected[fault] += 1
            continue
        meta = {"map": unit.map, "seed": unit.seed, "kind": "recorded", "monsters": unit.monsters}
        yield take.episode(unit.key(made), world, meta)
        made += 1
