"""The robots, objects and places of VIKI-Bench, from the data files beside this one (arXiv 2506.09049, section 3)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
CONTAINERS = frozenset({"plate", "cabinet", "drawer", "bowl", "sink", "toaster", "tray", "cardboardbox"})
"""What the released checker lets things be put into."""
PRIMITIVES = ("Move", "Reach", "Grasp", "Place", "Open", "Close", "Push", "Interact", "Handover")
DOGS = frozenset({"unitree_go2", "anymal_c"})


@dataclass(frozen=True)
class Robot:
    """A type of robot.

    Attributes:
        name: as records write it: `unitree_h1`.
        kind: arm, wheeled, humanoid or dog.
        hands: how many things it can hold.
        primitives: what a prompt says it can do; the checker knows Handover besides, for all that have hands.
        body: the model that scenes show.
        looks: what tells it apart.
    """

    name: str
    kind: str
    hands: int
    primitives: tuple[str, ...]
    body: str
    looks: str

    @property
    def checked_primitives(self) -> frozenset[str]:
        """Lower-case names of everything that the checker lets it do."""
        extra = ("handover",) if self.hands else ()
        return frozenset((*(name.lower() for name in self.primitives), *extra))


@dataclass(frozen=True)
class KitchenObject:
    """A thing that can be carried.

    Attributes:
        name: as records write it: `wooden cutting board`.
        kind: fruit, food, dish, cutlery, tool, bottle, appliance, box or board.
        size_m: largest extent.
        holds: whether things can be put into or onto it.
    """

    name: str
    kind: str
    size_m: float
    holds: bool = False


@dataclass(frozen=True)
class Place:
    """Where things can be.

    Attributes:
        name: as records write it: `kitchen work area`.
        kind: area, fixture or floor.
        holds: whether things can be put in (fixtures).
        closed: whether it starts shut.
        spot: what records call the place where a fixture stands.
    """

    name: str
    kind: str
    holds: bool = False
    closed: bool = False
    spot: str = ""


@functools.cache
def robots() -> dict[str, Robot]:
    """The six robots by name."""
    rows = _read("robots.yaml")
    return {name: Robot(name, **{**row, "primitives": tuple(row["primitives"])}) for name, row in rows.items()}


@functools.cache
def objects() -> dict[str, KitchenObject]:
    """What can be carried, by name."""
    return {name: KitchenObject(name, **row) for name, row in _read("objects.yaml").items()}


@functools.cache
def places() -> dict[str, Place]:
    """Areas, fixtures and the floor, by name."""
    return {name: Place(name, **row) for name, row in _read("places.yaml").items()}


def areas() -> tuple[str, ...]:
    """Names of the surfaces that robots can go to and put things on."""
    return tuple(place.name for place in places().values() if place.kind == "area")


def _read(name: str) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return rows
