"""What the objects look like: each is a few coloured solids of our own, recognisable by shape and colour.

Small things are drawn larger than they are (`ENLARGED`), since the global camera sees the kitchen from four metres: a
knife of 28 cm would be two pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .solids import Mesh, arc, ball, bent, box, cut_out, rod, shift, stretch, turn, turned, turned_ring

Colour = tuple[float, float, float]
ENLARGED = {"fruit": 1.5, "food": 1.35, "dish": 1.35, "cutlery": 1.5, "tool": 1.6, "bottle": 1.25, "appliance": 1.2}

_BROWN, _GREEN, _WHITE, _BLACK = (0.35, 0.22, 0.12), (0.20, 0.50, 0.16), (0.95, 0.95, 0.93), (0.08, 0.08, 0.09)
_STEEL, _RED, _BLUE, _WOOD = (0.60, 0.63, 0.67), (0.80, 0.10, 0.08), (0.12, 0.30, 0.70), (0.70, 0.47, 0.26)
_CARD = (0.72, 0.53, 0.33)


@dataclass(frozen=True)
class Look:
    """One coloured solid of an object."""

    mesh: Mesh
    colour: Colour


@cache
def object_looks(name: str) -> tuple[Look, ...]:
    """The solids of an object at the size it is drawn with, standing on z = 0 with its middle over the origin.

    Raises:
        KeyError: if objects.yaml does not hold the name.
    """
    facts = known_objects()[name]
    looks = _SHAPES[name]()
    points = np.concatenate([look.mesh.vertices for look in looks])
    low, high = points.min(0), points.max(0)
    scale = facts["size_m"] * ENLARGED.get(facts["kind"], 1.0) / float((high - low).max())
    origin = np.array([*((low + high) / 2)[:2], low[2]])
    return tuple(Look(Mesh((look.mesh.vertices - origin) * scale, look.mesh.faces), look.colour) for look in looks)


@cache
def object_extent(name: str) -> np.ndarray:
    """Full sizes [3] in metres of an object as drawn: along x, y and z at yaw 0."""
    points = np.concatenate([look.mesh.vertices for look in object_looks(name)])
    return points.max(0) - points.min(0)


@cache
def known_objects() -> dict[str, dict[str, Any]]:
    """The objects of objects.yaml: name -> kind, size_m and, for a container, holds."""
    text = (Path(__file__).parents[1] / "objects.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _stem(height: float, length: float = 0.25, radius: float = 0.035) -> Look:
    return Look(rod((0, 0, height), (0.06, 0, height + length), radius), _BROWN)


def _leaf(height: float) -> Look:
    return Look(shift(turn(ball(0.36, 0.18, 0.05), "y", -25), x=0.2, z=height + 0.12), _GREEN)


def _apple() -> list[Look]:
    body = turned(
        [(0.0, 0.08), (0.16, 0.0), (0.34, 0.08), (0.47, 0.30), (0.50, 0.52), (0.44, 0.74), (0.28, 0.86), (0.10, 0.82),
         (0.0, 0.74)]
    )  # fmt: skip
    return [Look(body, (0.76, 0.08, 0.09)), _stem(0.74, 0.28), _leaf(0.80)]


def _tomato() -> list[Look]:
    body = turned(
        [(0.0, 0.0), (0.28, 0.02), (0.46, 0.18), (0.50, 0.36), (0.44, 0.56), (0.24, 0.68), (0.0, 0.64)],
        24, lambda a: 1 + 0.04 * np.cos(5 * a),
    )  # fmt: skip
    star = [shift(turn(shift(ball(0.34, 0.12, 0.05), x=0.17), "z", 72 * k), z=0.68) for k in range(5)]
    return [Look(body, (0.93, 0.22, 0.08)), *(Look(leaf, _GREEN) for leaf in star)]


def _peach() -> list[Look]:
    body = turned(
        [(0.0, 0.04), (0.24, 0.0), (0.44, 0.18), (0.50, 0.42), (0.42, 0.66), (0.22, 0.80), (0.0, 0.76)],
        24, lambda a: 1 - 0.10 * np.exp(-((a - np.pi * 1.5) ** 2) / 0.03),
    )  # fmt: skip
    blush = shift(ball(0.76, 0.76, 0.62), x=0.16, y=-0.10, z=0.48)
    return [Look(body, (0.98, 0.66, 0.40)), Look(blush, (0.90, 0.38, 0.30)), _leaf(0.74)]


def _pear() -> list[Look]:
    body = turned(
        [(0.0, 0.02), (0.22, 0.0), (0.42, 0.16), (0.46, 0.36), (0.38, 0.60), (0.24, 0.84), (0.18, 1.04), (0.08, 1.14),
         (0.0, 1.14)]
    )  # fmt: skip
    return [Look(body, (0.72, 0.78, 0.20)), _stem(1.12, 0.2)]


def _banana() -> list[Look]:
    path = arc(1.0, 20, 140, 12, "xy")
    radii = [0.08, 0.14, 0.19, 0.22, 0.23, 0.23, 0.23, 0.22, 0.20, 0.17, 0.12, 0.07]
    tips = [Look(bent(path[-2:] + 0.0, (0.10, 0.06)), _BROWN), Look(bent(path[:2], (0.07, 0.10)), _BROWN)]
    return [Look(bent(path, radii, 12), (0.98, 0.84, 0.14)), *tips]


def _bread() -> list[Look]:
    outline = [(-0.42, 0.0), (0.42, 0.0), (0.44, 0.36), (0.52, 0.50), (0.46, 0.68), (0.26, 0.80), (0.0, 0.84),
               (-0.26, 0.80), (-0.46, 0.68), (-0.52, 0.50), (-0.44, 0.36)]  # fmt: skip
    loaf = shift(turn(turn(cut_out(outline, 1.5), "x", 90), "z", 90), x=-0.75)
    crumb = shift(turn(turn(stretch(cut_out(outline, 0.05), 0.9, 0.9), "x", 90), "z", 90), z=0.03)
    ends = [shift(crumb, x=0.74), shift(crumb, x=-0.79)]
    cuts = [shift(turn(ball(0.12, 0.8, 0.08), "z", 30), x=x, z=0.82) for x in (-0.45, 0.0, 0.45)]
    return [Look(loaf, (0.66, 0.38, 0.14)), *(Look(mesh, (0.95, 0.83, 0.62)) for mesh in (*ends, *cuts))]


def _pumpkin() -> list[Look]:
    body = turned(
        [(0.0, 0.06), (0.22, 0.0), (0.42, 0.12), (0.50, 0.34), (0.43, 0.56), (0.22, 0.68), (0.0, 0.60)],
        40, lambda a: 1 - 0.10 * np.abs(np.sin(5 * a)),
    )  # fmt: skip
    return [Look(body, (0.95, 0.48, 0.06)), Look(rod((0, 0, 0.58), (0.08, 0, 0.84), 0.06), _GREEN)]


def _meat() -> list[Look]:
    outline = [(-0.9, 0.05), (-0.7, -0.35), (-0.1, -0.5), (0.5, -0.42), (0.9, -0.1), (0.8, 0.3), (0.3, 0.5),
               (-0.3, 0.42), (-0.75, 0.38)]  # fmt: skip
    inner = [(0.85 * x, 0.78 * y) for x, y in outline]
    fat, steak = cut_out(outline, 0.28), shift(cut_out(inner, 0.1), z=0.2)
    bone = shift(ball(0.34, 0.26, 0.14), x=-0.5, z=0.3)
    return [Look(fat, (0.94, 0.80, 0.74)), Look(steak, (0.72, 0.13, 0.14)), Look(bone, _WHITE)]


def _pizza() -> list[Look]:
    crust = turned([(0.0, 0.0), (0.98, 0.0), (1.05, 0.07), (0.98, 0.14), (0.88, 0.09), (0.0, 0.09)], 28)
    cheese = turned([(0.0, 0.085), (0.88, 0.085), (0.86, 0.12), (0.0, 0.12)], 24)
    round_ = turned([(0.0, 0.12), (0.17, 0.12), (0.17, 0.16), (0.0, 0.16)], 10)
    spots = [(0.0, 0.1), (0.5, 0.2), (-0.45, 0.35), (-0.4, -0.4), (0.25, -0.5), (0.15, 0.62)]
    return [
        Look(crust, (0.78, 0.52, 0.24)),
        Look(cheese, (0.98, 0.82, 0.38)),
        *(Look(shift(round_, x, y), _RED) for x, y in spots),
        Look(shift(ball(0.2, 0.12, 0.06), 0.55, -0.25, 0.14), _GREEN),
    ]


def _green_peas() -> list[Look]:
    places = [(0.95 * np.cos(a), 0.95 * np.sin(a), 0.3) for a in np.arange(7) * 2 * np.pi / 7]
    places += [(0.0, 0.0, 0.3), *((0.5 * np.cos(a), 0.5 * np.sin(a), 0.62) for a in np.arange(4) * np.pi / 2 + 0.4)]
    places.append((0.0, 0.0, 1.0))
    return [Look(shift(ball(0.62, 0.62, 0.62, 10), *place), (0.36, 0.74, 0.14)) for place in places]


def _plate() -> list[Look]:
    disc = turned([(0.0, 0.0), (0.55, 0.0), (1.0, 0.14), (1.0, 0.18), (0.58, 0.05), (0.0, 0.04)], 28)
    rim = turned_ring([(0.86, 0.10), (1.01, 0.155), (1.01, 0.20), (0.86, 0.15)], 28)
    return [Look(disc, (0.97, 0.97, 0.96)), Look(rim, _BLUE)]


def _bowl() -> list[Look]:
    shell = turned(
        [(0.0, 0.0), (0.34, 0.0), (0.40, 0.06), (0.78, 0.32), (0.98, 0.70), (0.92, 0.70), (0.72, 0.38), (0.36, 0.12),
         (0.0, 0.10)], 26
    )  # fmt: skip
    band = turned_ring([(0.88, 0.52), (1.0, 0.68), (1.0, 0.76), (0.90, 0.76)], 26)
    return [Look(shell, (0.93, 0.60, 0.24)), Look(band, (0.98, 0.93, 0.82))]


def _cup() -> list[Look]:
    wall = turned([(0.0, 0.0), (0.36, 0.0), (0.42, 0.95), (0.36, 0.95), (0.32, 0.1), (0.0, 0.08)], 20)
    handle = shift(bent(arc(0.27, -80, 80), 0.06), x=0.40, z=0.48)
    return [Look(wall, (0.16, 0.62, 0.66)), Look(handle, (0.16, 0.62, 0.66))]


def _bottle() -> list[Look]:
    body = turned(
        [(0.0, 0.0), (0.36, 0.0), (0.38, 0.1), (0.38, 1.1), (0.30, 1.35), (0.16, 1.5), (0.16, 1.62), (0.0, 1.62)]
    )
    cap = turned([(0.0, 1.6), (0.19, 1.6), (0.19, 1.82), (0.0, 1.82)])
    label = turned([(0.0, 0.4), (0.395, 0.4), (0.395, 0.9), (0.0, 0.9)])
    return [Look(body, (0.45, 0.75, 0.95)), Look(cap, _BLUE), Look(label, _WHITE)]


def _wine() -> list[Look]:
    body = turned([(0.0, 0.0), (0.35, 0.0), (0.36, 1.15), (0.26, 1.4), (0.12, 1.6), (0.12, 2.0), (0.0, 2.0)])
    label = turned([(0.0, 0.35), (0.375, 0.35), (0.375, 0.95), (0.0, 0.95)])
    foil = turned([(0.0, 1.75), (0.145, 1.75), (0.145, 2.12), (0.0, 2.12)])
    return [Look(body, (0.07, 0.20, 0.09)), Look(label, (0.93, 0.88, 0.74)), Look(foil, (0.55, 0.05, 0.12))]


def _handle(colour: Colour, length: float = 0.9) -> Look:
    return Look(shift(box(length, 0.20, 0.17), x=-length / 2, z=0.085), colour)


def _knife() -> list[Look]:
    blade = cut_out([(0.0, -0.13), (0.85, -0.13), (1.15, 0.03), (1.1, 0.13), (0.0, 0.13)], 0.13)
    return [Look(blade, (0.80, 0.82, 0.85)), _handle(_BLACK, 0.8)]


def _fork() -> list[Look]:
    palm = shift(ball(0.40, 0.40, 0.16), x=0.32, z=0.08)
    tines = [shift(box(0.5, 0.065, 0.13), 0.68, y, 0.08) for y in (-0.16, -0.055, 0.055, 0.16)]
    neck = shift(box(0.2, 0.1, 0.1), x=0.1, z=0.06)
    return [*(Look(mesh, (0.80, 0.82, 0.85)) for mesh in (palm, neck, *tines)), _handle(_BLUE)]


def _spoon() -> list[Look]:
    head, neck = shift(ball(0.62, 0.46, 0.18), x=0.48, z=0.09), shift(box(0.3, 0.1, 0.1), x=0.12, z=0.06)
    hollow = shift(ball(0.44, 0.30, 0.1), x=0.48, z=0.15)
    steel = (0.80, 0.82, 0.85)
    return [Look(head, steel), Look(neck, steel), Look(hollow, _STEEL), _handle((0.62, 0.14, 0.50))]


def _scissors() -> list[Look]:
    blade = cut_out([(-0.1, -0.09), (0.2, -0.10), (1.1, 0.0), (1.1, 0.05), (0.2, 0.09), (-0.1, 0.09)], 0.1)
    ring = bent(arc(0.27, 0, 345, 16, "xy"), 0.09, 8, closed=True)
    looks = []
    for side in (1, -1):
        looks.append(Look(turn(blade, "z", 15 * side), (0.80, 0.82, 0.85)))
        looks.append(Look(shift(ring, -0.55, -0.30 * side, 0.08), (0.95, 0.35, 0.05)))
        looks.append(Look(rod((-0.05, 0, 0.06), (-0.34, -0.2 * side, 0.08), 0.08), (0.95, 0.35, 0.05)))
    return looks


def _cutting_board() -> list[Look]:
    board = cut_out([(-1.0, -0.6), (0.9, -0.6), (1.0, -0.5), (1.0, 0.5), (0.9, 0.6), (-1.0, 0.6)], 0.12)
    grip = shift(box(0.35, 0.3, 0.12), x=-1.15, z=0.06)
    stripes = [shift(box(1.9, 0.05, 0.01), y=y, z=0.122) for y in (-0.3, 0.0, 0.3)]
    return [Look(board, _WOOD), Look(grip, _WOOD), *(Look(stripe, (0.55, 0.34, 0.17)) for stripe in stripes)]


def _cardboard_box() -> list[Look]:
    walls = [shift(box(1.0, 0.04, 0.7), y=y, z=0.35) for y in (-0.38, 0.38)]
    walls += [shift(box(0.04, 0.8, 0.7), x=x, z=0.35) for x in (-0.5, 0.5)]
    flaps = [shift(turn(box(1.0, 0.3, 0.03), "x", 35 * s), y=s * 0.50, z=0.78) for s in (-1, 1)]
    tape = shift(box(0.16, 0.01, 0.4), y=-0.405, z=0.4)
    bottom = shift(box(1.0, 0.8, 0.04), z=0.02)
    looks = [Look(mesh, _CARD) for mesh in (*walls, bottom)]
    return [*looks, *(Look(flap, (0.80, 0.62, 0.42)) for flap in flaps), Look(tape, (0.90, 0.84, 0.66))]


def _cooling_fan() -> list[Look]:
    foot = turned([(0.0, 0.0), (0.36, 0.0), (0.34, 0.08), (0.08, 0.12), (0.0, 0.12)])
    cage = [
        shift(turn(bent(arc(0.5, 0, 348, 24, "xz"), 0.035, 6, closed=True), "z", 0), y=y, z=0.95) for y in (-0.1, 0.1)
    ]
    blades = []
    for k in range(4):
        blade = shift(turn(ball(0.42, 0.06, 0.24), "x", 20), x=0.23)
        blades.append(Look(shift(turn(blade, "y", 90 * k), z=0.95), (0.25, 0.65, 0.85)))
    hub = shift(ball(0.2, 0.24, 0.2), z=0.95)
    pole = rod((0, 0.08, 0.1), (0, 0.08, 0.95), 0.05)
    return [*(Look(mesh, _WHITE) for mesh in (foot, pole, *cage)), *blades, Look(hub, _BLUE)]


def _kettle() -> list[Look]:
    body = turned([(0.0, 0.0), (0.52, 0.0), (0.55, 0.12), (0.46, 0.55), (0.26, 0.78), (0.0, 0.82)], 22)
    spout = rod((0.42, 0, 0.32), (0.80, 0, 0.70), 0.08)
    handle = shift(bent(arc(0.42, 10, 170), 0.055), z=0.72)
    knob = shift(ball(0.16, 0.16, 0.14), z=0.88)
    red = (0.78, 0.12, 0.14)
    return [Look(body, red), Look(spout, red), Look(handle, _BLACK), Look(knob, _BLACK)]


_SHAPES: dict[str, Callable[[], list[Look]]] = {
    "apple": _apple,
    "banana": _banana,
    "bottle": _bottle,
    "bowl": _bowl,
    "bread": _bread,
    "cardboardbox": _cardboard_box,
    "cooling fan": _cooling_fan,
    "cup": _cup,
    "fork": _fork,
    "green peas": _green_peas,
    "kettle": _kettle,
    "knife": _knife,
    "meat": _meat,
    "peach": _peach,
    "pear": _pear,
    "pizza": _pizza,
    "plate": _plate,
    "pumpkin": _pumpkin,
    "scissors": _scissors,
    "spoon": _spoon,
    "tomato": _tomato,
    "wine": _wine,
    "wooden cutting board": _cutting_board,
}
