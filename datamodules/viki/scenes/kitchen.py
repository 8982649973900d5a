"""The kitchen: fixtures made of slabs, their usable surfaces, layouts, styles and lights. Metres.

A fixture's frame stands on the floor in the middle of its footprint; its front looks along -y. The room is open towards
the global camera: back wall at y = 2.7, side walls at x = -2.4 and 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HALF_WIDTH, BACK = 2.4, 2.7
COUNTER = 0.90  # height of its top
DEPTH = 0.60
_CABINET = (1.36, 1.98)  # lower and upper edge of the wall cabinet

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Slab:
    """A block, or an upright cylinder (`disc`), of full sizes, its middle at `pos`; `material` names its colour."""

    size: Triple
    pos: Triple
    material: str
    disc: bool = False


@dataclass(frozen=True)
class Surface:
    """Where things stand on or in a fixture: a rectangle of its frame, at a height."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: float


@dataclass(frozen=True)
class Placed:
    """Where a fixture stands: the middle of its footprint, turned by `yaw_deg` about the vertical."""

    x: float
    y: float
    yaw_deg: float


@dataclass(frozen=True)
class Layout:
    """Where the fixtures stand, and the free floor: (x from, x to, y from, y to)."""

    fixtures: Mapping[str, Placed]
    floor: tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """Colour and texture of each material that styles change: name -> (r, g, b, texture)."""

    name: str
    materials: Mapping[str, tuple[float, float, float, str]]


@dataclass(frozen=True)
class Light:
    """`ambient` and two lamps: each a strength and a position in the room."""

    ambient: float
    lamps: tuple[tuple[float, Triple], ...]


WIDTHS = {"fridge": 0.75, "drawer": 0.55, "oven": 0.62, "sink": 0.72, "work": 1.10, "toaster": 0.46}
SURFACES = {
    "kitchen work area": ("work", Surface((-0.48, 0.48), (-0.24, 0.20), COUNTER)),
    "kitchen island area": ("island", Surface((-0.55, 0.55), (-0.26, 0.26), COUNTER)),
    "table": ("table", Surface((-0.40, 0.40), (-0.32, 0.32), 0.72)),
    "rack": ("rack", Surface((-0.34, 0.34), (-0.14, 0.14), 0.94)),
    "cabinet": ("cabinet", Surface((-0.42, 0.42), (0.06, 0.20), _CABINET[0] + 0.03)),
    "drawer": ("drawer box", Surface((-0.19, 0.19), (-0.14, 0.06), 0.665)),
    "sink": ("sink", Surface((-0.20, 0.20), (-0.13, 0.10), COUNTER - 0.09)),
    "toaster": ("toaster", Surface((-0.06, 0.06), (-0.02, 0.02), COUNTER + 0.14)),
}
"""Place of places.yaml -> the fixture that carries it, and the surface on it."""

FIXTURE_OF = {"cabinet": "cabinet", "drawer": "drawer", "fridge": "fridge", "oven": "oven", "sink": "sink"} | {
    place: fixture for place, (fixture, _) in SURFACES.items() if place not in ("cabinet", "drawer", "sink")
}
"""Place of places.yaml -> the fixture that has to be seen for it (the floor has none)."""


def _unit(width: float, doors: int = 2) -> list[Slab]:
    """A counter unit: carcass, doors with handles, worktop."""
    slabs = [
        Slab((width, DEPTH - 0.04, 0.76), (0, 0.02, 0.48), "front"),
        Slab((width, DEPTH - 0.12, 0.10), (0, 0.04, 0.05), "dark"),
        Slab((width, DEPTH + 0.03, 0.04), (0, -0.01, COUNTER - 0.02), "top"),
    ]
    for k in range(doors):
        x = (k + 0.5) * width / doors - width / 2
        slabs.append(Slab((width / doors - 0.03, 0.02, 0.68), (x, -0.28, 0.49), "door"))
        slabs.append(Slab((0.14, 0.03, 0.025), (x, -0.30, 0.76), "handle"))
    return slabs


def _drawers() -> list[Slab]:
    w = WIDTHS["drawer"]
    slabs = [
        Slab((w, DEPTH - 0.04, 0.50), (0, 0.02, 0.35), "front"),
        Slab((w, DEPTH - 0.12, 0.10), (0, 0.04, 0.05), "dark"),
        Slab((w, 0.04, 0.28), (0, 0.28, 0.72), "front"),
        *(Slab((0.03, DEPTH - 0.04, 0.28), (s * (w / 2 - 0.015), 0.02, 0.72), "front") for s in (-1, 1)),
        Slab((w, 0.02, 0.11), (0, -0.26, 0.81), "front"),
        Slab((w, DEPTH + 0.03, 0.04), (0, -0.01, COUNTER - 0.02), "top"),
    ]
    for z in (0.23, 0.47):
        slabs.append(Slab((w - 0.03, 0.02, 0.21), (0, -0.28, z), "door"))
        slabs.append(Slab((0.20, 0.03, 0.025), (0, -0.30, z + 0.04), "handle"))
    return slabs


def _drawer_box() -> list[Slab]:
    """The upper drawer: it slides out along -y."""
    w = WIDTHS["drawer"] - 0.07
    return [
        Slab((w + 0.04, 0.02, 0.15), (0, -0.28, 0.675), "door"),
        Slab((0.22, 0.03, 0.03), (0, -0.30, 0.70), "handle"),
        Slab((w, 0.50, 0.015), (0, -0.02, 0.655), "inside"),
        *(Slab((0.015, 0.50, 0.08), (s * w / 2, -0.02, 0.69), "inside") for s in (-1, 1)),
        Slab((w, 0.015, 0.08), (0, 0.23, 0.69), "inside"),
    ]


def _fridge() -> list[Slab]:
    w, h = WIDTHS["fridge"], 1.78
    return [
        Slab((w, 0.60, h), (0, 0.0, h / 2), "metal"),
        *(Slab((w / 2 - 0.02, 0.04, h - 0.62), (s * w / 4, -0.31, 0.60 + (h - 0.62) / 2), "steel") for s in (-1, 1)),
        Slab((w - 0.02, 0.04, 0.50), (0, -0.31, 0.30), "steel"),
        *(Slab((0.03, 0.04, 0.60), (s * 0.05, -0.35, 1.15), "dark") for s in (-1, 1)),
        Slab((0.40, 0.04, 0.03), (0, -0.35, 0.48), "dark"),
    ]


def _oven() -> list[Slab]:
    w = WIDTHS["oven"]
    slabs = [
        Slab((w, DEPTH, 0.88), (0, 0.0, 0.44), "steel"),
        Slab((w - 0.08, 0.03, 0.46), (0, -0.31, 0.42), "dark"),
        Slab((w - 0.20, 0.035, 0.28), (0, -0.312, 0.40), "oven glass"),
        Slab((w - 0.14, 0.03, 0.03), (0, -0.35, 0.69), "metal"),
        Slab((w, DEPTH, 0.03), (0, 0.0, 0.895), "dark"),
        Slab((w, 0.04, 0.14), (0, 0.28, 0.96), "steel"),
        Slab((0.62, 0.40, 0.10), (0, 0.08, 1.62), "steel"),  # the hood and its chimney
        Slab((0.24, 0.24, 0.60), (0, 0.16, 1.95), "steel"),
    ]
    slabs += [Slab((0.05, 0.03, 0.05), (x, -0.31, 0.80), "metal") for x in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    slabs += [Slab((0.18, 0.18, 0.012), (x, y, 0.916), "metal", True) for x in (-0.15, 0.15) for y in (-0.14, 0.13)]
    return slabs


def _sink() -> list[Slab]:
    w = WIDTHS["sink"]
    low = COUNTER - 0.10
    carcass = [s for s in _unit(w) if s.material != "top"]
    carcass[0] = Slab((w, DEPTH - 0.04, 0.70), (0, 0.02, 0.45), "front")
    return [
        *carcass,
        Slab((w, 0.12, 0.10), (0, -0.265, COUNTER - 0.05), "top"),
        Slab((w, 0.14, 0.10), (0, 0.235, COUNTER - 0.05), "top"),
        *(Slab((0.10, 0.38, 0.10), (s * (w / 2 - 0.05), -0.02, COUNTER - 0.05), "top") for s in (-1, 1)),
        Slab((w - 0.2, 0.38, 0.01), (0, -0.02, low), "basin"),
        *(Slab((0.02, 0.38, 0.11), (s * (w / 2 - 0.11), -0.02, low + 0.055), "metal") for s in (-1, 1)),
        *(Slab((w - 0.2, 0.02, 0.11), (0, y, low + 0.055), "metal") for y in (-0.20, 0.16)),
        Slab((0.045, 0.045, 0.30), (0, 0.22, COUNTER + 0.15), "metal", True),
        Slab((0.04, 0.22, 0.04), (0, 0.12, COUNTER + 0.29), "metal"),
        Slab((0.035, 0.035, 0.06), (0, 0.03, COUNTER + 0.25), "metal", True),
        Slab((0.12, 0.03, 0.03), (0.09, 0.22, COUNTER + 0.05), "metal"),
    ]


def _toaster() -> list[Slab]:
    return [
        *_unit(WIDTHS["toaster"], 1),
        Slab((0.34, 0.20, 0.18), (0, 0.0, COUNTER + 0.11), "toaster"),
        Slab((0.36, 0.22, 0.03), (0, 0.0, COUNTER + 0.015), "dark"),
        *(Slab((0.26, 0.035, 0.012), (0, y, COUNTER + 0.203), "dark") for y in (-0.045, 0.045)),
        Slab((0.035, 0.06, 0.03), (0.185, 0.0, COUNTER + 0.14), "dark"),
        Slab((0.05, 0.02, 0.05), (0.10, -0.105, COUNTER + 0.08), "metal"),
    ]


def _cabinet() -> list[Slab]:
    """A wall cabinet without a front, and its glass doors."""
    low, high = _CABINET
    w, d, h, middle = 1.04, 0.34, high - low, (low + high) / 2
    y = 0.30 - d / 2
    doors = [Slab((w / 2 - 0.06, 0.008, h - 0.06), (s * w / 4, 0.30 - d, middle), "glass") for s in (-1, 1)]
    bars = [Slab((0.03, 0.02, h), (x, 0.30 - d, middle), "door") for x in (-w / 2 + 0.015, 0.0, w / 2 - 0.015)]
    bars += [Slab((w, 0.02, 0.03), (0, 0.30 - d, z), "door") for z in (low + 0.015, high - 0.015)]
    return [
        Slab((w, d, 0.03), (0, y, low + 0.015), "front"),
        Slab((w, d, 0.03), (0, y, high - 0.015), "front"),
        *(Slab((0.03, d, h), (s * (w / 2 - 0.015), y, middle), "front") for s in (-1, 1)),
        Slab((w, 0.02, h), (0, 0.29, middle), "inside"),
        Slab((w - 0.06, d - 0.04, 0.004), (0, y, low + 0.032), "inside"),
        *bars,
        *(Slab((0.02, 0.03, 0.14), (s * 0.05, 0.30 - d - 0.02, low + 0.16), "handle") for s in (-1, 1)),
        *doors,
    ]


def _island() -> list[Slab]:
    return [
        Slab((1.20, 0.58, 0.86), (0, 0, 0.43), "front"),
        *(Slab((0.36, 0.02, 0.66), (x, s * 0.30, 0.46), "door") for x in (-0.39, 0, 0.39) for s in (-1, 1)),
        Slab((1.32, 0.72, 0.05), (0, 0, COUNTER - 0.025), "top"),
    ]


def _table() -> list[Slab]:
    legs = [Slab((0.06, 0.06, 0.68), (x, y, 0.34), "wood") for x in (-0.40, 0.40) for y in (-0.33, 0.33)]
    return [*legs, Slab((0.92, 0.78, 0.04), (0, 0, 0.70), "wood")]


def _rack() -> list[Slab]:
    posts = [Slab((0.035, 0.035, 0.94), (x, y, 0.47), "metal") for x in (-0.38, 0.38) for y in (-0.17, 0.17)]
    return [*posts, *(Slab((0.80, 0.38, 0.025), (0, 0, z), "shelf") for z in (0.20, 0.57, 0.927))]


FIXTURES = {
    "fridge": _fridge(),
    "drawer": _drawers(),
    "drawer box": _drawer_box(),
    "oven": _oven(),
    "sink": _sink(),
    "work": _unit(WIDTHS["work"], 3),
    "toaster": _toaster(),
    "cabinet": _cabinet(),
    "island": _island(),
    "table": _table(),
    "rack": _rack(),
}
STAND = [
    Slab((0.80, 0.66, 0.05), (0.20, 0, 0.575), "wood"),
    Slab((0.70, 0.56, 0.04), (0.20, 0, 0.16), "wood"),
    *(Slab((0.05, 0.05, 0.56), (x, y, 0.28), "dark") for x in (-0.14, 0.54) for y in (-0.28, 0.28)),
]
"""The bench that an arm stands on, in the robot's frame (it looks along x), and where things lie within its reach."""
STAND_HEIGHT = 0.60
STAND_SURFACE = Surface((0.30, 0.54), (-0.26, 0.26), STAND_HEIGHT)
DRAWER_OPEN = 0.30


@cache
def layouts() -> tuple[Layout, ...]:
    """The kitchens of `kitchens.yaml`, in order."""
    return tuple(_layout(fields) for fields in _file()["layouts"])


@cache
def styles() -> tuple[Style, ...]:
    """The styles of `kitchens.yaml`, in order."""
    return tuple(
        Style(fields["name"], {name: _coloured(*values) for name, values in fields.items() if name != "name"})
        for fields in _file()["styles"]
    )


@cache
def lights() -> tuple[Light, ...]:
    """The lights of `kitchens.yaml`, in order."""
    return tuple(
        Light(fields["ambient"], tuple((lamp[0], tuple(lamp[1:])) for lamp in fields["lamps"]))
        for fields in _file()["lights"]
    )


def _coloured(r: float, g: float, b: float, texture: str = "plain") -> tuple[float, float, float, str]:
    return r, g, b, texture


def _file() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "kitchens.yaml").read_text(encoding="utf-8"))


def _layout(fields: dict[str, Any]) -> Layout:
    """Fixtures along the walls from the lists `back` (left to right), `left` and `right` (from the corner forward)."""
    placed: dict[str, Placed] = {}
    x = fields["from"]
    for name in fields["back"]:
        placed[name] = Placed(x + WIDTHS[name] / 2, BACK - DEPTH / 2, 0.0)
        x += WIDTHS[name]
    for side, sign in (("left", -1), ("right", 1)):
        y = BACK - fields.get("corner", 0.68)
        for name in fields.get(side, ()):
            placed[name] = Placed(sign * (HALF_WIDTH - DEPTH / 2), y - WIDTHS[name] / 2, -90.0 * sign)
            y -= WIDTHS[name]
    placed |= {name: Placed(*fields[name]) for name in ("island", "table", "rack")}
    placed["cabinet"] = placed[fields["cabinet over"]]
    placed["drawer box"] = placed["drawer"]
    return Layout(placed, tuple(fields["floor"]))


def corners(surface: Surface, placed: Placed) -> np.ndarray:
    """The surface in the room: [[x low, x high], [y low, y high], [z, z]]; exact for quarter turns."""
    c, s = np.cos(np.radians(placed.yaw_deg)), np.sin(np.radians(placed.yaw_deg))
    points = np.array([(c * x - s * y + placed.x, s * x + c * y + placed.y) for x in surface.x for y in surface.y])
    return np.array([*zip(points.min(0), points.max(0), strict=True), (surface.z, surface.z)])
