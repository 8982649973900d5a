"""What the primitives need and what they do (arXiv 2506.09049, section 3; the released checker's meaning, see `rules`).

All commands of a step are checked against the state before the step; then all of them take effect at once.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from .rules import Rules
from .state import ReleasedCheckerError, State

ARITY = {"move": 1, "reach": 1, "grasp": 1, "place": 1, "open": 1, "close": 1, "push": 2, "handover": 2, "interact": 1}
_DOORS = frozenset({"cabinet", "drawer", "kitchen cabinet", "kitchen drawer"})
_BOXES = frozenset({"box", "cardboardbox"})


class Command(NamedTuple):
    """One robot's action in a step.

    Attributes:
        name: lower-case primitive.
        agent: number of the robot, from 0.
        targets: assets (from 0), robots (-1 - number) or names of places.
    """

    name: str
    agent: int
    targets: tuple[int | str, ...]


def refusal(state: State, command: Command, rules: Rules) -> str | None:
    """Why the command can't be carried out now; None if it can.

    Raises:
        ReleasedCheckerError: where the released checker raises, with `rules.crashes`.
    """
    name, agent, targets = command
    if name not in state.problem.primitives[agent]:
        return f"a {state.problem.types[agent]} cannot {name}"
    if len(targets) != ARITY[name]:
        return f"{name} takes {ARITY[name]} target{'s' * (ARITY[name] > 1)}"
    return _CHECKS[name](state, agent, targets, rules)


def _move(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    target = targets[0]
    if (
        not rules.grasps_anything
        and isinstance(target, int)
        and target >= 0
        and chain_in_hand(state, target) is not None
    ):
        return f"{state.name(target)} is in a robot's hand"
    return None


def _reach(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    target = targets[0]
    if isinstance(target, str):
        return f"{target} is a place"
    name = state.name(target)
    if target < 0 and not rules.grasps_anything:
        return f"{name} is a robot"
    if rules.reach_from_afar:
        here, there = state.agent_pos[agent], state.pos_name(target)
        if not (state.is_aligned(-1 - agent, there) or state.is_aligned(target, here)):
            return f"the robot is not where {name} is"
    elif not stands_at(state, agent, target):
        return f"the robot does not stand at {name}"
    if (target >= 0 and state.is_behind_door(target)) if rules.crashes else is_shut_in(state, target):
        return f"{name} is behind a closed door"
    if not rules.grasps_anything and chain_in_hand(state, target) is not None:
        return f"{name} is in a robot's hand"
    return None


def _grasp(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    target = targets[0]
    if isinstance(target, str) or target < 0:
        return f"{state.name(target)} is nothing to grasp"
    name = state.name(target)
    if state.grasped[target]:
        return f"{name} is in a hand already"
    if not rules.grasps_anything and not state.problem.portable[target]:
        return f"{name} stands fast"
    if len(state.carried[agent]) >= state.problem.hands[agent]:
        return "the robot has no free hand"
    if target not in state.reached[agent]:
        return f"{name} was not reached first"
    return None


def _place(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    target = targets[0]
    name = state.name(target)
    if isinstance(target, int) and target < 0:
        return f"{name} is a robot"
    if not rules.holds_anything:
        if isinstance(target, int) and not state.problem.holds[target]:
            return f"{name} is not made to hold things"
        if isinstance(target, int) and chain_in_hand(state, target) is not None:
            return f"{name} is in a robot's hand"
    if isinstance(target, str):
        here = state.is_aligned(-1 - agent, target) if rules.reach_from_afar else state.agent_pos[agent] == target
    elif rules.reach_from_afar:
        there = state.pos_name(target)
        here = state.is_aligned(-1 - agent, there) or state.is_aligned(target, state.agent_pos[agent])
    else:
        here = stands_at(state, agent, target)
    if not here:
        return f"the robot is not at {name}"
    if isinstance(target, int) and state.problem.containers[target] and state.cell_shut[target]:
        return f"{name} is closed"
    return None if state.carried[agent] else "the robot carries nothing"


def _open(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    return _door(state, agent, targets, rules, shut=True)


def _close(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    return _door(state, agent, targets, rules, shut=False)


def _door(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules, *, shut: bool) -> str | None:
    target = targets[0]
    name = state.name(target)
    if isinstance(target, str) or target < 0 or name not in _DOORS:
        return f"{name} has no door"
    if not _is_beside(state, agent, target, rules):
        return f"the robot is not at {name}"
    if len(state.carried[agent]) >= state.problem.hands[agent]:
        return "the robot has no free hand"
    if not state.problem.containers[target] or state.cell_shut[target] != shut:
        return f"{name} is {'open' if shut else 'closed'} already"
    return None if target in state.reached[agent] else f"{name} was not reached first"


def _push(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    box, _ = targets
    if isinstance(box, str) or box < 0 or state.name(box) not in _BOXES:
        return f"{state.name(box)} can't be pushed"
    if not rules.grasps_anything and chain_in_hand(state, box) is not None:
        return f"{state.name(box)} is in a robot's hand"
    return None if _is_beside(state, agent, box, rules) else f"the robot is not at {state.name(box)}"


def _handover(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    asset, other = targets
    if isinstance(asset, str) or asset < 0 or isinstance(other, str) or other >= 0:
        return "handover takes a thing and a robot"
    here, there = state.agent_pos[agent], state.pos_name(other)
    together = here == state.name(other) or there == state.problem.agents[agent]
    if not (together or (not rules.crashes and here == there)):
        return f"the robot is not with {state.name(other)}"
    if not (state.carried[agent] if rules.crashes else asset in state.carried[agent]):
        return f"the robot does not carry {state.name(asset)}"
    receiver = -1 - other
    if len(state.carried[receiver]) >= state.problem.hands[receiver] or (receiver == agent and not rules.crashes):
        return f"{state.name(other)} has no free hand"
    return None


def _interact(state: State, agent: int, targets: tuple[int | str, ...], rules: Rules) -> str | None:
    target = targets[0]
    if isinstance(target, str) or target < 0:
        return f"{state.name(target)} can't be switched on"
    problem, name = state.problem, state.name(target)
    in_hand = target in state.carried[agent]
    if not problem.dogs[agent] and not in_hand and len(state.carried[agent]) >= problem.hands[agent]:
        return "the robot has no free hand"
    if not rules.tools_lie and problem.portable[target] and not in_hand:
        return f"the robot does not hold {name}"
    if not (in_hand and not rules.lost_after_grasp) and not _is_beside(state, agent, target, rules):
        return f"the robot is not at {name}"
    return f"{name} is on already" if state.active[target] else None


_CHECKS = {
    "move": _move, "reach": _reach, "grasp": _grasp, "place": _place, "open": _open, "close": _close, "push": _push,
    "handover": _handover, "interact": _interact,
}  # fmt: skip


def _is_beside(state: State, agent: int, target: int, rules: Rules) -> bool:
    """Whether the robot stands at the thing, or the thing is at the robot."""
    if rules.reach_from_afar:
        return state.agent_pos[agent] == state.name(target) or state.problem.agents[agent] == state.pos_name(target)
    return stands_at(state, agent, target)


def stands_at(state: State, agent: int, target: int) -> bool:
    """Whether the robot stands at the very thing, or the thing, or what holds it, is at the robot's first spot and the
    robot too.
    """
    if state.agent_pos[agent] == state.name(target):
        return True
    me, seen = state.problem.agents[agent], set()
    if state.agent_pos[agent] != me:  # it has left the spot that is called by its name
        return False
    while True:
        position = state.pos_name(target)
        holder = state.entity(position, assets_first=True)
        if position == me:
            return True
        if holder is None or holder < 0 or position in seen:
            return False
        seen.add(position)
        target = holder


def chain_in_hand(state: State, target: int) -> int | None:
    """The first thing in the chain of what holds the target, itself included, that is in a hand."""
    seen: set[int] = set()
    holder: int | None = target
    while holder is not None and holder >= 0 and holder not in seen:
        if state.grasped[holder]:
            return holder
        seen.add(holder)
        holder = state.entity(state.pos_name(holder), assets_first=True)
    return None


def is_shut_in(state: State, target: int) -> bool:
    """Whether anything in the chain of what holds the target is shut."""
    seen: set[int] = set()
    holder: int | None = target
    while holder is not None and holder >= 0 and holder not in seen:
        cell = state.cells[holder]
        if cell >= 0 and state.cell_shut[cell]:
            return True
        seen.add(holder)
        holder = state.entity(state.pos_name(holder), assets_first=True)
    return False


def clash(state: State, commands: list[Command], rules: Rules) -> str | None:
    """Why the commands of one step can't be carried out together; None if they can.

    Raises:
        ReleasedCheckerError: where the released checker raises, with `rules.crashes`.
    """
    if len(commands) == 1 and commands[0].name not in ("push", "close"):
        return None
    users: dict[str, list[str]] = {}
    for command in commands:
        for entity in (-1 - command.agent, *command.targets):
            if state.name(entity) in state.problem.asset_index:
                users.setdefault(state.name(entity), []).append(command.name)
    for name, primitives in users.items():
        for pair in combinations(primitives, 2):
            if "move" not in pair and not {"reach", "place"}.issuperset(pair):
                return f"{name} can't be used twice in one step ({pair[0]}, {pair[1]})"
    if not rules.crashes:
        for command in commands:
            receiver = command.targets[-1] if command.name == "handover" else None
            if receiver is not None and any(-1 - other.agent == receiver for other in commands):
                return f"{state.name(receiver)} has to hold still to take something"
    closing = next((c for c in commands if c.name == "close"), None)
    if closing is None:
        return None
    if rules.crashes:
        raise ReleasedCheckerError("close raises there, once it is feasible")
    for command in commands:
        inside = any(isinstance(t, int) and t >= 0 and state.cells[t] == closing.targets[0] for t in command.targets)
        into = command.name == "place" and command.targets[0] == closing.targets[0]
        if command.name not in ("move", "close") and (inside or into):
            return f"a hand is in {state.name(closing.targets[0])} while it closes"
    return None
