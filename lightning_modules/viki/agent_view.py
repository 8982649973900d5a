"""A task as arrays: numbered actions, features of the state, masks. Slots stand for things, robots and places.

F = features, A = actions. Slots are the record's own order of assets, so that a policy has to read what they are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy

from ...datamodules.viki.actions import Command, refusal
from ...datamodules.viki.problem import Fact, Problem
from ...datamodules.viki.rules import STRICT
from ...datamodules.viki.state import State
from ...datamodules.viki.vocabulary import areas, objects, places, robots
from ...registry import UserError

AGENTS = ("R1", "R2", "R3")
NUM_ASSETS = 5
_AREAS = areas()
_NAMES = (*objects(), *(place.name for place in places().values() if place.kind == "fixture"))
_TYPES = tuple(robots())
_SLOTS = NUM_ASSETS + len(AGENTS) + len(_AREAS)  # of things, robots and areas, in this order
_WHERE = _SLOTS + 1  # or somewhere else
_ASSET = len(_NAMES) + _WHERE + 3 + _SLOTS + 1 + _SLOTS + 2
_AGENT = len(_TYPES) + _WHERE + 2 * NUM_ASSETS


def _numbered() -> tuple[tuple[str, tuple[int, ...]], ...]:
    """All actions as (primitive, slots of its targets); the first waits."""
    assets, agents = range(NUM_ASSETS), range(NUM_ASSETS, NUM_ASSETS + len(AGENTS))
    everywhere = range(_SLOTS)
    found: list[tuple[str, tuple[int, ...]]] = [("wait", ())]
    found += [("move", (slot,)) for slot in everywhere]
    found += [("place", (slot,)) for slot in everywhere if slot not in agents]
    found += [(name, (slot,)) for name in ("reach", "grasp", "open", "close", "interact") for slot in assets]
    found += [("push", pair) for pair in itertools.product(assets, agents)]
    return tuple(found)


ACTIONS = _numbered()
"""Every action as (primitive, slots of its targets), by its number."""
NUM_SLOTS = _SLOTS
NUM_AREAS = len(_AREAS)


@dataclass(frozen=True)
class Seen:
    """Features by what they say, views of one array or tensor [..., F]; W = slots and "elsewhere", S = slots.

    Attributes:
        name: [..., assets, names].
        where: [..., assets, W].
        flags: [..., assets, 3]: grasped, switched on, behind a shut door.
        goal: [..., assets, S], where it has to be at the end.
        switch: [..., assets, 1], whether it has to be switched on.
        before: [..., assets, S], where it has to be earlier.
        order: [..., assets, 2], its place in a chain, and whether there is one.
        type: [..., agents, types].
        agent_where: [..., agents, W].
        reached: [..., agents, assets].
        carried: [..., agents, assets].
        who: [..., agents], who looks.
        time: [..., 1].
    """

    name: Any
    where: Any
    flags: Any
    goal: Any
    switch: Any
    before: Any
    order: Any
    type: Any
    agent_where: Any
    reached: Any
    carried: Any
    who: Any
    time: Any


def seen(features: Any) -> Seen:
    """Take features apart; any array that slices and reshapes as NumPy's do."""
    lead, num_agents, start = tuple(features.shape[:-1]), len(AGENTS), NUM_ASSETS * _ASSET
    assets = features[..., :start].reshape(*lead, NUM_ASSETS, _ASSET)
    agents = features[..., start : start + num_agents * _AGENT].reshape(*lead, num_agents, _AGENT)
    found: list[Any] = []
    at = 0
    for width in (len(_NAMES), _WHERE, 3, _SLOTS, 1, _SLOTS, 2):
        found.append(assets[..., at : at + width])
        at += width
    at = 0
    for width in (len(_TYPES), _WHERE, NUM_ASSETS, NUM_ASSETS):
        found.append(agents[..., at : at + width])
        at += width
    found += [features[..., -1 - num_agents : -1], features[..., -1:]]
    return Seen(*found)


class AgentView:
    """What the robots of one task see and can do.

    Args:
        problem: the task.

    Raises:
        UserError: if it has more things or robots than there are slots.
    """

    num_features = NUM_ASSETS * _ASSET + len(AGENTS) * _AGENT + len(AGENTS) + 1
    num_actions = len(ACTIONS)

    def __init__(self, problem: Problem) -> None:
        if len(problem.assets) > NUM_ASSETS or len(problem.agents) > len(AGENTS):
            raise UserError(
                f"a task of {len(problem.assets)} things and {len(problem.agents)} robots: there is room for "
                f"{NUM_ASSETS} and {len(AGENTS)}"
            )
        self.problem = problem
        self._slot: dict[str, int] = {name: NUM_ASSETS + len(AGENTS) + i for i, name in enumerate(_AREAS)}
        self._slot |= {name: NUM_ASSETS + i for i, name in enumerate(problem.agents)}
        self._slot |= {name: i for i, name in enumerate(problem.assets)}
        self._target: dict[int, int | str] = {s: n for n, s in self._slot.items() if n in _AREAS}
        self._target |= {NUM_ASSETS + i: -1 - i for i in range(len(problem.agents))}
        self._target |= {i: i for i in range(len(problem.assets))}
        self._asked = self._asked_for()
        self._possible = [self._commands(agent) for agent in range(len(problem.agents))]

    def command(self, agent: int, action: int) -> Command | None:
        """The command of a numbered action; None for waiting."""
        name, slots = ACTIONS[action]
        if name == "wait" or any(slot not in self._target for slot in slots):
            return None
        return Command(name, agent, tuple(self._target[slot] for slot in slots))

    def number(self, agent: int, command: str) -> int:
        """The number of a command written as in plans.

        Raises:
            UserError: if there is none.
        """
        name, *targets = command.split(",")
        wanted = name.lower(), tuple(self._slot.get(target, -1) for target in targets)
        if wanted not in ACTIONS:
            raise UserError(f"{self.problem.agents[agent]}: no action '{command}'")
        return ACTIONS.index(wanted)

    def mask(self, state: State, agent: int) -> numpy.ndarray:
        """Which actions the state allows, int8 [A]; waiting always."""
        found = numpy.zeros(self.num_actions, numpy.int8)
        found[0] = 1
        for number, command in self._possible[agent]:
            if refusal(state, command, STRICT) is None:
                found[number] = 1
        return found

    def _commands(self, agent: int) -> list[tuple[int, Command]]:
        """Numbered commands that the robot's make can carry out at all."""
        numbered = ((number, self.command(agent, number)) for number in range(1, self.num_actions))
        able = self.problem.primitives[agent]
        return [(number, command) for number, command in numbered if command is not None and command.name in able]

    def features(self, state: State, time: float) -> numpy.ndarray:
        """The state as all robots see it, float32 [F]; the part that says who looks is left zero.

        Args:
            state: what is where.
            time: share of the episode that has passed.
        """
        found = numpy.zeros(self.num_features, numpy.float32)
        for asset in range(len(self.problem.assets)):
            part = found[asset * _ASSET : (asset + 1) * _ASSET]
            name = self.problem.assets[asset]
            if name in _NAMES:
                part[_NAMES.index(name)] = 1
            start = len(_NAMES)
            part[start + self._where(state, asset)] = 1
            start += _WHERE
            part[start : start + 3] = (bool(state.grasped[asset]), state.active[asset], state.cell_shut[asset])
            part[start + 3 :] = self._asked[asset]
            part[-1] *= not all(state.done)
        start = NUM_ASSETS * _ASSET
        for agent in range(len(self.problem.agents)):
            part = found[start + agent * _AGENT : start + (agent + 1) * _AGENT]
            part[_TYPES.index(self.problem.types[agent])] = 1
            part[len(_TYPES) + self._where(state, -1 - agent)] = 1
            hands = len(_TYPES) + _WHERE
            for offset, things in ((0, state.reached[agent]), (NUM_ASSETS, state.carried[agent])):
                for thing in things:
                    part[hands + offset + thing] = 1
        found[-1] = time
        return found

    def seen_by(self, shared: numpy.ndarray, agent: int) -> numpy.ndarray:
        """The features with the mark of the robot that looks, float32 [F]."""
        found = shared.copy()
        found[-1 - len(AGENTS) + agent] = 1
        return found

    def _where(self, state: State, target: int) -> int:
        return self._slot.get(state.pos_name(target), _SLOTS)

    def _asked_for(self) -> numpy.ndarray:
        """What goals and chains want of each thing, float32 [things, ...]: where it has to be at the end and whether
        on; where it has to be before, its place in the chain, and whether there is one.
        """
        found = numpy.zeros((NUM_ASSETS, 2 * _SLOTS + 3), numpy.float32)
        for facts in self.problem.goals:
            for fact in facts:
                self._mark(found, fact, 0)
        for chain in self.problem.chains:
            for order, facts in enumerate(chain):
                for fact in facts:
                    self._mark(found, fact, _SLOTS + 1)
                    if fact.name in self.problem.asset_index:
                        found[self.problem.asset_index[fact.name], -2:] = (order / len(chain), 1)
        return found

    def _mark(self, found: numpy.ndarray, fact: Fact, start: int) -> None:
        asset = self.problem.asset_index.get(fact.name)
        if asset is None:
            return
        if fact.path == "is_activated":
            found[asset, _SLOTS] = 1
        elif fact.value in self._slot:
            found[asset, start + self._slot[fact.value]] = 1
