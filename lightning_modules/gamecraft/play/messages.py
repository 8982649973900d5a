"""What the page and the server say to each other over the WebSocket.

Page to server, JSON text: {"type": "keys", "held": [...], "seq": n}, {"type": "look", "turn": deg, "up": deg,
"seq": n}, {"type": "speed", "walk": 0..1, "turn": 0..1}, {"type": "start", "name": ...}, {"type": "restart"},
{"type": "record", "on": bool}; or the bytes of a picture to start from. Anything else is ignored and counted.

Server to page: JSON text (`hello`, `chunk`, `status`, `film`, `notice`, `full`), and one binary message a frame:
`HEADER`, then the frame's rows as raw RGB (21 kB at 64x112: half a megabyte a second, which needs no codec on a
loopback).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from ....datamodules.gamecraft.actions import KEYS
from .session import Frame

HEADER = struct.Struct(
    "<IIIIf"
)  # index, chunk, input answered, flags (1 first of its chunk, 2 rested), seconds to make
MAX_MESSAGE_BYTES = 16 << 20  # a picture from a camera
MAX_SEQUENCE = 2**32 - 1
MAX_TURN_DEG = 3600.0


@dataclass(frozen=True)
class Keys:
    """The keys now down, and the input's number."""

    held: tuple[str, ...]
    sequence: int


@dataclass(frozen=True)
class Look:
    """Degrees to the right and up that the mouse turned the view by, and the input's number."""

    turn_deg: float
    look_deg: float
    sequence: int


@dataclass(frozen=True)
class Speed:
    """Fractions of the greatest speed at which keys walk and turn."""

    walk: float
    turn: float


@dataclass(frozen=True)
class Begin:
    """Play from this start frame; None: from the last one again."""

    name: str | None


@dataclass(frozen=True)
class Record:
    """Begin or end a recording."""

    on: bool


Message = Keys | Look | Speed | Begin | Record


def parse_message(text: str) -> Message | None:
    """A text message of the page, or None if it is none of ours. Never raises."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    match content.get("type"):
        case "keys":
            held, sequence = content.get("held"), _sequence(content)
            known = isinstance(held, list) and len(held) <= len(KEYS) and all(k in KEYS for k in held)
            return Keys(tuple(held), sequence) if known and held is not None and sequence is not None else None
        case "look":
            turn, up = (_number(content.get(k), -MAX_TURN_DEG, MAX_TURN_DEG) for k in ("turn", "up"))
            sequence = _sequence(content)
            return None if turn is None or up is None or sequence is None else Look(turn, up, sequence)
        case "speed":
            walk, turn = (_number(content.get(k), 0.0, 1.0) for k in ("walk", "turn"))
            return None if walk is None or turn is None else Speed(walk, turn)
        case "start":
            name = content.get("name")
            return Begin(name) if isinstance(name, str) else None
        case "restart":
            return Begin(None)
        case "record":
            on = content.get("on")
            return Record(on) if isinstance(on, bool) else None
    return None


def _number(value: Any, low: float, high: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None
    return float(value) if math.isfinite(value) else None


def _sequence(content: dict[str, Any]) -> int | None:
    value = content.get("seq")
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEQUENCE
    return value if good else None


def frame_message(frame: Frame) -> bytes:
    """A frame as the bytes of its message."""
    flags = frame.first + 2 * frame.rested
    header = HEADER.pack(frame.index, frame.chunk, frame.answers, flags, frame.generation_s)
    return header + frame.picture.tobytes()
