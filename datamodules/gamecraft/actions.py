"""The continuous action space of GameCraft (arXiv 2506.17201, section 3.2) and the text grammar of key chords.

An action is a translation direction, a rotation direction, a length and an angle per frame; roll does not exist. Keys
are a way to write one down: each key held contributes its axis at a fraction of that axis's greatest speed.

    "w@0.8:33 a@0.3+left@0.5:33 -:33"
      keys joined by +, each with @fraction (default 1), then :frames (default 33); a lone - is "no key held"
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...registry import UserError

KEYS = ("w", "s", "a", "d", "left", "right", "up", "down")
"""Forward, back, strafe left, strafe right, view left, view right, view up, view down."""
CLIP_FRAMES = 33
MAX_SEGMENT_FRAMES = 100_000
_INVERTED = (1, 0, 3, 2, 5, 4, 7, 6)
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?|[0-9]+\.", re.ASCII | re.IGNORECASE)
_FRAMES = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class SpeedLimits:
    """What a fraction of 1.0 means on each axis, per frame.

    Attributes:
        forward: greatest speed forward and back, in map units.
        strafe: greatest speed to either side, in map units.
        turn_deg: greatest turn of the view about the vertical, in degrees.
        look_deg: greatest change of the view's pitch, in degrees.
        unit_scale: map units to camera units, the lengths that Plücker moments are made of.
    """

    forward: float = 8.0
    strafe: float = 6.0
    turn_deg: float = 3.0
    look_deg: float = 1.0
    unit_scale: float = 1 / 150


DEFAULT_LIMITS = SpeedLimits()


@dataclass(frozen=True)
class Chord:
    """Keys held together, each at a fraction of its axis's greatest speed; opposite keys cancel.

    Attributes:
        speeds: eight fractions, 0 to 1, in the order of `KEYS`.

    Raises:
        UserError: if there are not eight speeds, or one is not a number from 0 to 1.
    """

    speeds: tuple[float, ...]

    def __post_init__(self) -> None:
        speeds = tuple(float(s) for s in self.speeds)
        if len(speeds) != len(KEYS):
            raise UserError(f"a chord has {len(KEYS)} speeds, one for each of {', '.join(KEYS)}; got {len(speeds)}")
        for key, speed in zip(KEYS, speeds, strict=True):
            if not 0 <= speed <= 1:
                raise UserError(f"speed of '{key}' is {speed:g}; a speed is a fraction from 0 to 1")
        object.__setattr__(self, "speeds", speeds)

    @classmethod
    def of(cls, **speeds: float) -> Chord:
        """A chord from key names: `Chord.of(w=1.0, left=0.5)`; `Chord.of()` holds no key.

        Raises:
            UserError: if a name is no key, or a speed is not from 0 to 1.
        """
        for key in speeds:
            if key not in KEYS:
                raise UserError(f"'{key}' is no key\nkeys: {' '.join(KEYS)}")
        return cls(tuple(float(speeds.get(key, 0.0)) for key in KEYS))

    @classmethod
    def from_vector(cls, vector: Iterable[float]) -> Chord:
        """A chord from eight numbers in the order of `KEYS`; the inverse of `vector`."""
        return cls(tuple(float(v) for v in vector))

    def vector(self) -> np.ndarray:
        """The eight fractions as float32 [8]."""
        return np.asarray(self.speeds, dtype=np.float32)

    def axes(self) -> tuple[float, float, float, float]:
        """Net fractions (forward, right, turn left, look up), each -1 to 1: opposite keys cancel."""
        w, s, a, d, left, right, up, down = self.speeds
        return w - s, d - a, left - right, up - down

    def inverted(self) -> Chord:
        """The chord that undoes this one: every key changed for its opposite (for temporal inversion)."""
        return Chord(tuple(self.speeds[i] for i in _INVERTED))

    def __str__(self) -> str:
        held = [key if s == 1 else f"{key}@{s!r}" for key, s in zip(KEYS, self.speeds, strict=True) if s > 0]
        return "+".join(held) or "-"


@dataclass(frozen=True)
class Segment:
    """A chord held for a number of frames."""

    chord: Chord
    num_frames: int = CLIP_FRAMES

    def __str__(self) -> str:
        return f"{self.chord}:{self.num_frames}"


def parse_actions(text: str) -> list[Segment]:
    """Read the grammar of this file's top.

    Args:
        text: segments with white space between them. Keys may be written in capitals.

    Raises:
        UserError: if the text is empty or a segment can't be read; says which segment, at which character (from 1),
            and which keys there are.
    """
    segments = [_parse_segment(match.group(), match.start() + 1) for match in re.finditer(r"\S+", text)]
    if not segments:
        raise _mistake("no action given", 1)
    return segments


def format_actions(segments: Iterable[Segment]) -> str:
    """Write segments in the grammar; `parse_actions` reads back equal ones."""
    return " ".join(str(segment) for segment in segments)


def _parse_segment(word: str, position: int) -> Segment:
    keys, colon, count = word.partition(":")
    num_frames = CLIP_FRAMES
    if colon:
        where = position + len(keys) + 1
        if not _FRAMES.fullmatch(count) or not 1 <= int(count) <= MAX_SEGMENT_FRAMES:
            raise _mistake(f"'{_short(count)}' is no number of frames from 1 to {MAX_SEGMENT_FRAMES}", where)
        num_frames = int(count)
    if keys == "-":
        return Segment(Chord.of(), num_frames)
    speeds: dict[str, float] = {}
    for part in keys.split("+"):
        name, at, number = part.partition("@")
        key = name.lower()
        if key not in KEYS:
            raise _mistake(f"'{_short(name)}' is no key", position)
        if key in speeds:
            raise _mistake(f"'{key}' is held twice in one chord", position)
        speeds[key] = 1.0
        if at:
            where = position + len(name) + 1
            if not _NUMBER.fullmatch(number) or not 0 <= float(number) <= 1:
                raise _mistake(f"'{_short(number)}' is no speed from 0 to 1", where)
            speeds[key] = float(number)
        position += len(part) + 1
    return Segment(Chord.of(**speeds), num_frames)


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:24] + "…"


def _mistake(what: str, position: int) -> UserError:
    return UserError(
        f"actions, character {position}: {what}\n"
        f"keys: {' '.join(KEYS)}; '-' holds none; join with +, @ sets the speed, : the frames\n"
        'example: "w@0.8:33 a@0.3+left@0.5:33"'
    )


@dataclass(frozen=True)
class Action:
    """The paper's action (section 3.2): two unit vectors and two lengths, in the camera's axes (right, down, forward).

    Attributes:
        d_trans: direction of translation, a unit vector; zeros where `alpha` is 0.
        d_rot: axis of rotation, a unit vector, right-handed: +x looks up, +y turns right; z (roll) is 0. Zeros where
            `beta` is 0.
        alpha: translation per frame, camera units.
        beta: rotation per frame, degrees.
    """

    d_trans: tuple[float, float, float]
    d_rot: tuple[float, float, float]
    alpha: float
    beta: float


def chord_to_action(chord: Chord, limits: SpeedLimits = DEFAULT_LIMITS) -> Action:
    """The action that a chord stands for."""
    forward, right, turn_left, look_up = chord.axes()
    move = (right * limits.strafe * limits.unit_scale, 0.0, forward * limits.forward * limits.unit_scale)
    rotate = (look_up * limits.look_deg, -turn_left * limits.turn_deg, 0.0)
    alpha, beta = math.hypot(*move), math.hypot(*rotate)
    return Action(_direction(move, alpha), _direction(rotate, beta), alpha, beta)


def action_to_chord(action: Action, limits: SpeedLimits = DEFAULT_LIMITS) -> Chord:
    """The chord, free of opposite keys, that makes `action`.

    Raises:
        UserError: if no chord makes it: it rolls, rises or sinks, or is faster than `limits` allow on an axis.
    """
    right, lift, forward = (action.alpha * c for c in action.d_trans)
    look_up, turn_right, roll = (action.beta * c for c in action.d_rot)
    if abs(lift) > 1e-9 or abs(roll) > 1e-9:
        raise UserError("no keys make this action: it rolls, rises or sinks")
    speeds: dict[str, float] = {}
    for value, limit, plus, minus in (
        (forward, limits.forward * limits.unit_scale, "w", "s"),
        (right, limits.strafe * limits.unit_scale, "d", "a"),
        (turn_right, limits.turn_deg, "right", "left"),
        (look_up, limits.look_deg, "up", "down"),
    ):
        key, fraction = plus if value > 0 else minus, abs(value) / limit
        if fraction > 1 + 1e-6:
            raise UserError(f"no keys make this action: '{key}' would be {fraction:g}, above 1")
        speeds[key] = min(fraction, 1.0)
    return Chord.of(**speeds)


def _direction(vector: tuple[float, float, float], length: float) -> tuple[float, float, float]:
    x, y, z = vector
    return (x / length, y / length, z / length) if length > 0 else (0.0, 0.0, 0.0)


COUNTERFACTUAL_CHORDS: tuple[Chord, ...] = (
    *(Chord.of(**{key: 0.8}) for key in KEYS),
    Chord.of(w=0.8, left=0.8),
    Chord.of(w=0.8, right=0.8),
    Chord.of(a=0.8, right=0.8),
    Chord.of(d=0.8, left=0.8),
)
"""The twelve actions of the counterfactual test."""
