"""A record's task as the simulator takes it: who is there, what lies where, what has to come true."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .vocabulary import CONTAINERS, objects, places, robots

MAX_STARTS = 256
"""Combinations of start areas that are tried; released records have at most 16."""


class ProblemError(ValueError):
    """A ground truth that describes no task; the text says what is wrong."""


@dataclass(frozen=True)
class Fact:
    """One thing that has to be true: an attribute of an asset or a robot has a value.

    Attributes:
        kind: `asset` or `agent`.
        name: of the asset or robot.
        path: dotted attribute, such as `pos.name` or `is_activated`.
        value: what it has to be (or must not be).
        wanted: whether it has to be, or must not be.
        aligned: a position also counts if the chain of what holds the thing leads there.
    """

    kind: str
    name: str
    path: str
    value: Any
    wanted: bool
    aligned: bool


Facts = tuple[Fact, ...]


@dataclass(eq=False)
class Problem:
    """One task. The last fields are worked out of the others.

    Attributes:
        agents: names of the robots, `R1` to `R3`.
        types: their types, in the same order.
        assets: names of the things and fixtures.
        starts: for each asset the areas that it may start in.
        goals: each has to hold at the end.
        chains: of each, the facts have to come true in order.
        num_steps: length of the gold plan.
        agent_index: robot's name -> its number.
        asset_index: asset's name -> its number.
        entities: what a name in a command stands for: an asset's number, or -1 - a robot's.
        hands: of each robot, how many things it can hold.
        dogs: whether it is one.
        primitives: lower-case names of what it can do.
        containers: of each asset, whether the released checker lets things be put into it.
        portable: whether it can be carried: all but the kitchen's fixtures and places.
        holds: whether it is made to hold things; what the vocabulary doesn't know may.
        place_names: names that are places without being an asset or a robot.
        chains_of_assets: whether going and reaching alone can't make a chain's fact true or untrue.
    """

    agents: tuple[str, ...]
    types: tuple[str, ...]
    assets: tuple[str, ...]
    starts: tuple[tuple[str, ...], ...]
    goals: tuple[Facts, ...]
    chains: tuple[tuple[Facts, ...], ...]
    num_steps: int
    agent_index: dict[str, int] = field(init=False)
    asset_index: dict[str, int] = field(init=False)
    entities: dict[str, int] = field(init=False)
    hands: tuple[int, ...] = field(init=False)
    dogs: tuple[bool, ...] = field(init=False)
    primitives: tuple[frozenset[str], ...] = field(init=False)
    containers: tuple[bool, ...] = field(init=False)
    portable: tuple[bool, ...] = field(init=False)
    holds: tuple[bool, ...] = field(init=False)
    place_names: frozenset[str] = field(init=False)
    chains_of_assets: bool = field(init=False)

    def __post_init__(self) -> None:
        known, fixtures = objects(), places()
        kinds = [robots()[name] for name in self.types]
        self.agent_index = {name: i for i, name in enumerate(self.agents)}
        self.asset_index = {name: i for i, name in enumerate(self.assets)}
        self.entities = self.asset_index | {name: -1 - i for i, name in enumerate(self.agents)}
        self.hands = tuple(kind.hands for kind in kinds)
        self.dogs = tuple(kind.kind == "dog" for kind in kinds)
        self.primitives = tuple(kind.checked_primitives for kind in kinds)
        self.containers = tuple(name in CONTAINERS for name in self.assets)
        self.portable = tuple(name not in fixtures for name in self.assets)
        self.holds = tuple(
            name in CONTAINERS or (known[name].kind == "board" if name in known else name not in fixtures)
            for name in self.assets
        )
        facts = [fact for goal in (*self.goals, *itertools.chain(*self.chains)) for fact in goal]
        named = {fact.value for fact in facts if fact.path == "pos.name" and isinstance(fact.value, str)}
        ordered = [fact for chain in self.chains for group in chain for fact in group]
        self.chains_of_assets = all(fact.kind == "asset" and not fact.aligned for fact in ordered)
        self.place_names = frozenset(fixtures) | frozenset(itertools.chain(*self.starts)) | named

    def drawn_start(self, seed: int) -> tuple[str, ...]:
        """One area for each asset, as the released scorer draws them after `random.seed(seed)`."""
        return _drawn(self.starts, seed)

    def all_starts(self) -> list[tuple[str, ...]]:
        """Every combination of start areas, up to `MAX_STARTS` of them."""
        return list(itertools.islice(itertools.product(*self.starts), MAX_STARTS))

    @classmethod
    def read(cls, ground_truth: Mapping[str, Any]) -> Problem:
        """The task of a record's ground truth in the released form; parquet's null padding is dropped.

        Raises:
            ProblemError: if a field is missing or has the wrong form; the text names it.
        """
        truth = without_nulls(ground_truth)
        try:
            fields = {key: truth[key] for key in ("robots", "init_pos", "goal_constraints", "temporal_constraints")}
            starts: dict[str, tuple[str, ...]] = {}
            for key, choices in fields["init_pos"].items():
                if not (key.startswith("R") and key[1:].isdigit()):  # robots: where they stand is their own name
                    starts[key.rsplit("_", 1)[0]] = tuple(choices)
            for types in fields["robots"].values():
                if types not in robots():
                    raise ProblemError(f"robots: no robot '{types}'; there are {', '.join(robots())}")
            for name, areas in starts.items():
                if not areas or not all(isinstance(area, str) for area in areas):
                    raise ProblemError(f"init_pos: '{name}' has no place to start in")
            return cls(
                tuple(fields["robots"]), tuple(fields["robots"].values()), tuple(starts), tuple(starts.values()),
                tuple(map(_facts, fields["goal_constraints"])),
                tuple(tuple(map(_facts, chain)) for chain in fields["temporal_constraints"]),
                len(ground_truth.get("time_steps") or ()),
            )  # fmt: skip
        except KeyError as error:
            raise ProblemError(f"ground_truth: no field {error}") from None
        except (AttributeError, TypeError) as error:
            raise ProblemError(f"ground_truth: a field of the wrong form: {error}") from None


@functools.lru_cache(1024)
def _drawn(starts: tuple[tuple[str, ...], ...], seed: int) -> tuple[str, ...]:
    draw = random.Random(seed)
    return tuple(draw.choice(areas) for areas in starts)


def without_nulls(value: Any) -> Any:
    """The value with every null key and item left out, at any depth; empty lists and dicts stay.

    NumPy arrays, which pandas makes of parquet's lists, become lists.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        return [without_nulls(item) for item in value if item is not None]
    return value


def _facts(rows: Any) -> Facts:
    found = []
    for row in [rows] if isinstance(rows, Mapping) else rows:
        item = row[0] if isinstance(row, list) and len(row) == 1 else row
        aligned = item.get("check_pos_type", "static") == "aligned"
        for path, value in item["status"].items():
            fact = Fact(item["type"], item["name"], path, value, bool(item["is_satisfied"]), aligned)
            found.append(fact)
    return tuple(found)
