"""What is where: the state of the symbolic kitchen, shared by checker, planner and environment.

Things are numbers: assets 0, 1, ...; robots -1, -2, ... (R1 is -1). What a command names beside these is a place, a
str.
A position is a cell with a name: a container has one, which all its contents share, and what was put down together
shares one too. A thing put onto a mere thing has that thing itself for its cell, written -1 - asset.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .problem import Fact, Facts, Problem


class ReleasedCheckerError(Exception):
    """The released checker would raise here; its reward is then 0."""


class State:
    """Where every robot and every asset is, at one moment.

    Attributes:
        problem: the task.
        agent_pos: of each robot, the name of what it stands at; its own at the start.
        reached: of each robot, the things in reach of its hands, oldest first.
        carried: of each robot, the assets in its hands.
        cells: of each asset, its cell.
        grasped: of each asset, how many times it was grasped without being put down.
        active: of each asset, whether it was switched on.
        asset_names: names of the assets; pushing can change one under the released rules.
        cell_names: names of the cells.
        cell_shut: whether a cell is behind a closed door.
        done: of each chain, whether it has come true.
    """

    __slots__ = (
        "active", "agent_pos", "asset_names", "carried", "cell_names", "cell_shut", "cells", "done", "grasped",
        "problem", "reached",
    )  # fmt: skip
    problem: Problem
    agent_pos: list[str]
    reached: list[tuple[int, ...]]
    carried: list[tuple[int, ...]]
    cells: list[int]
    grasped: list[int]
    active: list[bool]
    asset_names: list[str]
    cell_names: list[str]
    cell_shut: list[bool]
    done: list[bool]

    @classmethod
    def start(cls, problem: Problem, areas: tuple[str, ...]) -> State:
        """The state before the first step, with each asset in its area."""
        self = cls.__new__(cls)
        self.problem = problem
        num_assets = len(problem.assets)
        self.agent_pos = list(problem.agents)
        self.reached = [()] * len(problem.agents)
        self.carried = [()] * len(problem.agents)
        self.grasped = [0] * num_assets
        self.active = [False] * num_assets
        self.asset_names = list(problem.assets)
        self.cell_names = list(problem.assets)  # cell i is the inside of asset i
        self.cell_shut = [name == "cabinet" for name in problem.assets]
        self.done = [False] * len(problem.chains)
        self.cells = []
        for area in areas:
            holder = problem.asset_index.get(area, -1)
            inside = holder >= 0 and problem.containers[holder]
            self.cells.append(holder if inside else self.new_cell(area))
        return self

    def copy(self) -> State:
        """An independent state."""
        other = State.__new__(State)
        other.problem = self.problem
        other.agent_pos, other.reached, other.carried = self.agent_pos[:], self.reached[:], self.carried[:]
        other.cells, other.grasped, other.active = self.cells[:], self.grasped[:], self.active[:]
        other.asset_names, other.cell_names = self.asset_names[:], self.cell_names[:]
        other.cell_shut, other.done = self.cell_shut[:], self.done[:]
        return other

    def key(self) -> Hashable:
        """Equal for states that no plan can tell apart (under rules that do not drag cells along)."""
        return (
            tuple(self.agent_pos), tuple(self.reached), tuple(self.carried),
            tuple(map(self.pos_name, range(len(self.cells)))), tuple(self.cell_shut[: len(self.cells)]),
            tuple(self.active), tuple(self.done),
        )  # fmt: skip

    def new_cell(self, name: str) -> int:
        """A fresh open position; returns its number."""
        self.cell_names.append(name)
        self.cell_shut.append(False)
        return len(self.cell_names) - 1

    def name(self, target: int | str) -> str:
        """Name of an asset, robot or place."""
        if isinstance(target, str):
            return target
        return self.asset_names[target] if target >= 0 else self.problem.agents[-1 - target]

    def pos_name(self, target: int) -> str:
        """Name of where an asset or robot is."""
        if target < 0:
            return self.agent_pos[-1 - target]
        cell = self.cells[target]
        return self.cell_names[cell] if cell >= 0 else self.asset_names[-1 - cell]

    def entity(self, name: str, *, assets_first: bool = False) -> int | None:
        """The asset or robot of that name."""
        asset = self.problem.asset_index.get(name) if assets_first else None
        return self.problem.entities.get(name) if asset is None else asset

    def is_aligned(self, target: int, place: str) -> bool:
        """Whether the chain from a thing to what holds it, to what holds that, … names the place, or ends in it."""
        seen = set()
        while True:
            position = self.pos_name(target)
            holder = self.entity(position, assets_first=True)
            if holder is None:
                return place in (position, self.name(target))
            if position in seen:
                return False
            if position == place:
                return True
            seen.add(position)
            target = holder

    def is_behind_door(self, asset: int) -> bool:
        """Whether the asset lies in something shut.

        Raises:
            ReleasedCheckerError: if it lies on a mere thing, of which the released checker can't say.
        """
        cell = self.cells[asset]
        if cell < 0:
            raise ReleasedCheckerError("it lies on a thing that is no container")
        return self.cell_shut[cell]

    def holds(self, facts: Facts, *, crashes: bool) -> bool:
        """Whether all the facts are true now.

        Args:
            facts: what to look at.
            crashes: as the released checker: a fact about nothing that is there raises.

        Raises:
            ReleasedCheckerError: for such a fact, with `crashes`; without, it is not true.
        """
        for fact in facts:
            try:
                if not self._is_true(fact):
                    return False
            except (LookupError, AttributeError):
                if crashes:
                    raise ReleasedCheckerError(f"a goal about {fact.name}, {fact.path}, which is not there") from None
                return False
        return True

    def _is_true(self, fact: Fact) -> bool:
        index = {"asset": self.problem.asset_index, "agent": self.problem.agent_index}[fact.kind][fact.name]
        target = index if fact.kind == "asset" else -1 - index
        if fact.path == "pos.name":
            value = self.is_aligned(target, fact.value) if fact.aligned else self.pos_name(target) == fact.value
        elif fact.aligned and "pos.name" in fact.path:
            value = self.is_aligned(target, fact.value)
        else:
            value = self._attribute(target, fact.path) == fact.value
        return value == fact.wanted

    def _attribute(self, target: int, path: str) -> Any:
        """An attribute under the released checker's name for it.

        Raises:
            AttributeError: if there is no such attribute.
        """
        if path == "name":
            return self.name(target)
        if target < 0:
            agent = -1 - target
            if path == "type":
                return self.problem.types[agent]
            if path == "end_effector_num":
                return self.problem.hands[agent]
            if path in ("reached_objects", "carried_objects"):
                return list((self.reached if path[0] == "r" else self.carried)[agent])
            raise AttributeError(path)
        if path == "is_activated":
            return self.active[target]
        if path == "is_grasped_by":
            return [self.pos_name(target)] * self.grasped[target]
        if path == "is_container":
            return self.problem.containers[target]
        if path == "pos.isolated" and self.cells[target] >= 0:
            return self.cell_shut[self.cells[target]]
        if path.startswith("container_position.") and self.problem.containers[target]:
            return (self.cell_names if path.endswith("name") else self.cell_shut)[target]
        raise AttributeError(path)
