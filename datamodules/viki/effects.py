"""What a step changes: all its commands at once, as the released simulator does it or with its faults mended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .actions import Command, chain_in_hand
from .rules import Rules
from .state import ReleasedCheckerError, State


@dataclass(slots=True)
class _Changes:
    """What the commands of a step set, worked out from the state before it.

    Attributes:
        stands: robot -> name of where it stands now.
        reached: robot -> things in reach.
        carried: robot -> things in its hands.
        assets: asset -> what changes of it: `cell`, `pushed_to`, `grasped`, `shut`, `active`. A later command's entry
            takes the place of an earlier one's, except for what is put down.
    """

    stands: dict[int, str] = field(default_factory=dict)
    reached: dict[int, tuple[int, ...]] = field(default_factory=dict)
    carried: dict[int, tuple[int, ...]] = field(default_factory=dict)
    assets: dict[int, dict[str, Any]] = field(default_factory=dict)


def apply(state: State, commands: list[Command], rules: Rules, before: State | None = None) -> None:
    """Change the state by the commands of one step, which were found feasible and compatible.

    Args:
        state: what is changed.
        commands: of the step.
        rules: what holds.
        before: a copy of the state, where the caller has one.

    Raises:
        ReleasedCheckerError: where the released simulator raises, with `rules.crashes`.
    """
    if len(commands) == 1 and commands[0].name in ("move", "reach"):  # two thirds of all steps
        name, agent, (target,) = commands[0]
        if name == "move":
            state.agent_pos[agent] = state.name(target)
            state.reached[agent] = ()
        else:
            state.reached[agent] = _reached_too(state, commands[0])
        return
    if before is None and not rules.lost_after_grasp:
        before = state.copy()
    changes = _Changes()
    for command in commands:
        _EFFECTS[command.name](state, command, rules, changes)
    for agent, name in changes.stands.items():
        state.agent_pos[agent] = name
    for agent, things in changes.reached.items():
        state.reached[agent] = things
    for agent, things in changes.carried.items():
        state.carried[agent] = things
    for asset, what in changes.assets.items():
        if state.asset_names[asset] != state.problem.assets[asset]:
            raise ReleasedCheckerError("a thing that lost its name when something on it was pushed")
        _change(state, asset, what, rules)
    if before is not None and not rules.lost_after_grasp:
        _leave_behind(state, before, commands)


def _move(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.stands[command.agent] = state.name(command.targets[0])
    changes.reached[command.agent] = ()


def _reach(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.reached[command.agent] = _reached_too(state, command)


def _reached_too(state: State, command: Command) -> tuple[int, ...]:
    """What the robot reaches then; a hand that is needed gives up what was reached first."""
    reached, target = state.reached[command.agent], command.targets[0]
    assert isinstance(target, int)
    keep = reached[1:] if len(reached) >= state.problem.hands[command.agent] else reached
    return (*keep, target)


def _grasp(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    agent, target = command.agent, command.targets[0]
    assert isinstance(target, int)
    taken = state.reached[agent] if rules.grasps_all else (target,)
    changes.carried[agent] = (*state.carried[agent], *taken)
    changes.reached[agent] = () if rules.grasps_all else tuple(t for t in state.reached[agent] if t != target)
    for thing in changes.carried[agent] if rules.grasps_all else taken:
        if thing < 0:
            raise ReleasedCheckerError("a robot was grasped")
        cell = state.new_cell(state.problem.agents[agent])
        changes.assets[thing] = {"grasped": state.grasped[thing] + 1, "cell": cell}


def _place(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    target = command.targets[0]
    shared = (
        state.new_cell(target)
        if isinstance(target, str)
        else target
        if state.problem.containers[target]
        else -1 - target
    )
    for thing in state.carried[command.agent]:
        alone = isinstance(target, str) and not rules.push_drags
        cell = state.new_cell(state.name(target)) if alone else shared
        changes.assets.setdefault(thing, {}).update(cell=cell, grasped=0)
    changes.carried[command.agent] = ()


def _open(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.assets[_asset(command)] = {"shut": False}


def _close(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.assets[_asset(command)] = {"shut": True}


def _interact(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.assets[_asset(command)] = {"active": True}


def _push(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    changes.stands[command.agent] = state.name(_asset(command))
    to = command.targets[1]
    there = state.name(to) if rules.push_drags or isinstance(to, str) or to >= 0 else state.pos_name(to)
    changes.assets[_asset(command)] = {"pushed_to": there}


def _handover(state: State, command: Command, rules: Rules, changes: _Changes) -> None:
    if rules.crashes:
        raise ReleasedCheckerError("handover takes its targets in the wrong order there")
    asset, other = _asset(command), command.targets[1]
    assert isinstance(other, int)
    receiver = -1 - other
    held = changes.carried.get(receiver, state.carried[receiver])
    changes.carried[command.agent] = tuple(t for t in state.carried[command.agent] if t != asset)
    changes.carried[receiver] = (*held, asset)
    changes.assets[asset] = {"cell": state.new_cell(state.problem.agents[receiver])}


_EFFECTS = {
    "move": _move, "reach": _reach, "grasp": _grasp, "place": _place, "open": _open, "close": _close, "push": _push,
    "handover": _handover, "interact": _interact,
}  # fmt: skip


def _asset(command: Command) -> int:
    target = command.targets[0]
    assert isinstance(target, int)
    return target


def _change(state: State, asset: int, what: dict[str, Any], rules: Rules) -> None:
    if "cell" in what:
        state.cells[asset] = what["cell"]
    if "grasped" in what:
        state.grasped[asset] = what["grasped"]
    if "shut" in what:
        state.cell_shut[asset] = what["shut"]
    if "active" in what:
        state.active[asset] = True
    if "pushed_to" in what:
        cell = state.cells[asset]
        if not rules.push_drags:
            state.cells[asset] = state.new_cell(what["pushed_to"])
        elif cell >= 0:
            state.cell_names[cell] = what["pushed_to"]
        else:
            state.asset_names[-1 - cell] = what["pushed_to"]


def _leave_behind(state: State, before: State, commands: list[Command]) -> None:
    """A robot that stands at something which was carried or pushed away stands where that was."""
    pushed = {_asset(c): c.agent for c in commands if c.name == "push"}
    for agent, name in enumerate(state.agent_pos):
        target = state.problem.asset_index.get(name)
        if target is None:
            continue
        gone = chain_in_hand(state, target)
        if gone is None and pushed.get(target, agent) != agent:
            gone = target
        if gone is not None:
            state.agent_pos[agent] = before.pos_name(gone)
