"""Which keys a recorded player holds: drawn at random, biased as play is, and led away from walls by the map.

A path is the positions of a held chord on the map, float64 [P,2], by the same motion model as `camera.trajectory`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .actions import CLIP_FRAMES, DEFAULT_LIMITS, Chord, SpeedLimits
from .doom_map import PLAYER_RADIUS, DoomMap

# keys held -> how often, in thousandths: forward-biased, but every key in at least one chunk of twelve
_HELD: dict[tuple[str, ...], int] = {
    (): 40,
    ("w",): 150, ("s",): 60, ("a",): 60, ("d",): 60, ("left",): 65, ("right",): 65, ("up",): 35, ("down",): 35,
    ("w", "left"): 80, ("w", "right"): 80, ("w", "a"): 20, ("w", "d"): 20,
    ("a", "left"): 15, ("a", "right"): 25, ("d", "left"): 25, ("d", "right"): 15,
    ("s", "left"): 20, ("s", "right"): 20, ("s", "a"): 8, ("s", "d"): 8,
    ("w", "up"): 12, ("w", "down"): 12,
    ("left", "up"): 8, ("right", "up"): 8, ("left", "down"): 8, ("right", "down"): 8,
    ("w", "a", "right"): 10, ("w", "d", "left"): 10, ("w", "left", "up"): 5, ("w", "right", "up"): 5,
    ("w", "left", "down"): 4, ("w", "right", "down"): 4,
}  # fmt: skip
_CHOICES = tuple(_HELD)
_WEIGHTS = np.array([_HELD[keys] for keys in _CHOICES], dtype=np.float64) / sum(_HELD.values())
LOWEST_SPEED = 0.3
_LEVEL_DEG = 25.0  # a view farther than this from level is brought back
_TRIES = 12


def draw_chord(rng: np.random.Generator, pitch_deg: float = 0.0) -> Chord:
    """One chord: up to three keys, each at a speed of U(0.3, 1); never farther from level than 25 degrees allows."""
    keys = _CHOICES[rng.choice(len(_CHOICES), p=_WEIGHTS)]
    if pitch_deg < -_LEVEL_DEG:
        keys = tuple("down" if key == "up" else key for key in keys)
    elif pitch_deg > _LEVEL_DEG:
        keys = tuple("up" if key == "down" else key for key in keys)
    return Chord.of(**{key: round(float(rng.uniform(LOWEST_SPEED, 1)), 3) for key in keys})


def path_of(
    chord: Chord, x: float, y: float, angle_deg: float, num_frames: int, limits: SpeedLimits = DEFAULT_LIMITS
) -> np.ndarray:
    """Positions [num_frames, 2] in map units after 1, 2, … tics of the chord from a pose on the map, in free space."""
    ahead, aside, turn, _ = chord.axes()
    ahead, aside = ahead * limits.forward, aside * limits.strafe
    angle_P = np.radians(angle_deg + turn * limits.turn_deg * np.arange(1, num_frames + 1))
    cos_P, sin_P = np.cos(angle_P), np.sin(angle_P)
    step_P2 = np.stack([ahead * cos_P + aside * sin_P, ahead * sin_P - aside * cos_P], axis=-1)
    return np.cumsum(step_P2, axis=0) + np.array([x, y])


def walkable(world: DoomMap, path_P2: np.ndarray) -> bool:
    """Whether a walker gets along the path: nothing blocks within its radius, and the level does not end on it."""
    few_P2 = _thin(path_P2)
    return bool((world.clearance(few_P2) > PLAYER_RADIUS + 1).all()) and not world.crosses_exit(few_P2)


def flyable(world: DoomMap, path_P2: np.ndarray, floor: float, view_height: float) -> bool:
    """Whether a camera that clips into nothing stays inside the map's rooms and keeps its height on the path.

    Args:
        world: the map.
        path_P2: the path.
        floor: height of the start's floor; a higher one would lift the camera.
        view_height: of the camera above the start's floor.
    """
    few_P2 = _thin(path_P2)
    if not (world.clearance(few_P2, walls_only=True) > PLAYER_RADIUS + 8).all():
        return False
    sector_P = world.sector_at(few_P2)
    fits_P = (world.floor_S[sector_P] <= floor) & (world.ceiling_S[sector_P] >= floor + view_height + 12)
    return bool(((sector_P >= 0) & fits_P).all())


def _thin(path_P2: np.ndarray) -> np.ndarray:
    """Every third point and the last one: closer than a wall's thickness to each other."""
    few_P2 = path_P2[::3]
    return few_P2 if len(path_P2) % 3 == 1 else np.concatenate([few_P2, path_P2[-1:]])


def plan_chord(
    rng: np.random.Generator,
    pose: tuple[float, float, float, float],
    fits: Callable[[np.ndarray], bool],
    limits: SpeedLimits = DEFAULT_LIMITS,
    num_frames: int = CLIP_FRAMES,
    draw: Callable[[np.random.Generator, float], Chord] = draw_chord,
) -> Chord:
    """A chord whose path fits; turning on the spot, where twelve draws find none.

    Motion on the spot always fits, and is taken only if drawn first: walls then make it no more frequent.

    Args:
        rng: the source of chance.
        pose: x, y (map units), heading and pitch (degrees) as `DoomEngine.pose` gives them.
        fits: says whether a path [P,2] can be taken.
        limits: what a fraction of 1 means.
        num_frames: how long the chord will be held.
        draw: draws a candidate from the generator and the pitch.
    """
    x, y, angle_deg, pitch_deg = pose
    for attempt in range(_TRIES):
        chord = draw(rng, pitch_deg)
        ahead, aside, _, _ = chord.axes()
        moves = ahead != 0 or aside != 0
        if fits(path_of(chord, x, y, angle_deg, num_frames, limits)) if moves else attempt == 0:
            return chord
    speed = round(float(rng.uniform(LOWEST_SPEED, 1)), 3)
    return Chord.of(left=speed) if rng.random() < 0.5 else Chord.of(right=speed)


def draw_heading(rng: np.random.Generator, world: DoomMap, x: float, y: float, reach: float = 320.0) -> float:
    """A heading in degrees from a spot on the map: of three random ones, that with the longest free way ahead."""
    ahead_P = np.arange(16.0, reach + 1, 16.0)
    best = (-1, 0.0)
    for angle_deg in rng.uniform(0, 360, 3):
        way_P2 = np.array([x, y]) + ahead_P[:, None] * [np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))]
        blocked_P = world.clearance(way_P2) < PLAYER_RADIUS
        best = max(best, (int(blocked_P.argmax()) if blocked_P.any() else len(ahead_P), float(angle_deg)))
    return best[1]
