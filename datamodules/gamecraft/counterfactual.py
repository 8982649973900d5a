"""The counterfactual set: one start, twelve actions, all twelve real answers.

Each answer is recorded from the level's start on: same seed, same place, same history of one clip, then its own chord.
The twelve histories are equal to the last bit; a start where they are not is thrown away and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from .actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS, Chord
from .chord_policy import draw_heading, path_of, plan_chord, walkable
from .doom import DoomEngine, LevelEnded
from .doom_map import DoomMap
from .episode import Episode
from .take import Take
from .units import Unit

_ATTEMPTS = 200
_CLEARANCE = 96.0  # a start in the open, where most of the twelve have room


def record_answers(engine: DoomEngine, unit: Unit, rejected: Counter[str]) -> Iterator[Episode]:
    """Twelve episodes of two clips: the history, common to all, and the answer; a pure function of the unit.

    Args:
        engine: a walking one of the unit's game.
        unit: what to record; its number of episodes is the number of actions. None come out if no start on the map
            lets all twelve chords move freely.
        rejected: counts, by filter, what was thrown away; added to.
    """
    rng = unit.generator()
    level_seed = int(rng.integers(2**31))
    world = engine.load(unit.map, level_seed)
    for _ in range(_ATTEMPTS):
        spot = world.draw_point(rng, _CLEARANCE)
        if spot is None:
            return
        x, y = int(spot[0]), int(spot[1])
        angle_deg = draw_heading(rng, world, x, y)
        history = plan_chord(rng, (x, y, angle_deg, 0.0), lambda path_P2: walkable(world, path_P2), engine.limits)
        if not _all_free(world, engine, history, x, y, angle_deg):
            continue
        takes: list[Take] = []
        fault = None
        for chord in COUNTERFACTUAL_CHORDS[: unit.num_episodes]:
            engine.load(unit.map, level_seed)
            take = Take(engine, 2)
            try:
                fault = None if engine.place(x, y, angle_deg) else "stuck"
                take.hold(history)
                take.hold(chord)
                fault = fault or take.fault()
            except LevelEnded:
                fault = "ended"
            if takes and not np.array_equal(take.frames_NHW3[:CLIP_FRAMES], takes[0].frames_NHW3[:CLIP_FRAMES]):
                fault = "unequal"
            if fault is not None:
                break
            takes.append(take)
        if fault is not None:
            rejected[fault] += 1
            continue
        for action_index, take in enumerate(takes):
            meta = {"map": unit.map, "seed": unit.seed, "kind": "counterfactual", "monsters": unit.monsters}
            meta |= {"start": unit.key("x")[:-2], "action_index": action_index}
            yield take.episode(unit.key(action_index), world, meta)
        return


def _all_free(world: DoomMap, engine: DoomEngine, history: Chord, x: int, y: int, angle_deg: float) -> bool:
    """Whether the history and, after it, all twelve chords have a free way on level floor."""
    ahead, aside, turn, _ = history.axes()
    before_P2 = path_of(history, x, y, angle_deg, CLIP_FRAMES, engine.limits)
    if (ahead or aside) and not walkable(world, before_P2):
        return False
    angle_deg += turn * engine.limits.turn_deg * CLIP_FRAMES
    floor = world.floor_S[world.sector_at(before_P2[-1:])[0]]
    for chord in COUNTERFACTUAL_CHORDS:
        path_P2 = path_of(
            chord, float(before_P2[-1, 0]), float(before_P2[-1, 1]), angle_deg, CLIP_FRAMES, engine.limits
        )
        if not walkable(world, path_P2):
            return False
        if (np.abs(world.floor_S[world.sector_at(path_P2[::4])] - floor) > 8).any():
            return False
    return True
