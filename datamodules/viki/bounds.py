"""How many steps a task needs at least from here, and how many actions about.

The bound on steps lets the planner leave most states unlooked at, and holds under the strict rules: every thing is
fetched by Move, Reach, Grasp, Move and Place of its own. The number of actions rewards robots for getting nearer.
"""

from __future__ import annotations

from .actions import is_shut_in, stands_at
from .problem import Fact
from .rules import Rules
from .state import State


def steps_to_go(state: State, rules: Rules) -> int:
    """A number of steps that no plan from this state falls short of; 0 where everything asked for is so.

    Under other rules than the strict ones it only tells whether anything is left to do.
    """
    problem = state.problem
    goals = [f for facts in problem.goals for f in facts if not state.holds((f,), crashes=False)]
    chains = [chain for done, chain in zip(state.done, problem.chains, strict=True) if not done]
    if not goals and not chains:
        return 0
    if rules.reach_from_afar:
        return 1
    fixed = any("move" not in primitives for primitives in problem.primitives)
    longest = max([1, *(_steps_for(state, fact, fixed) for fact in goals)])
    left = {(f.name, f.path, f.value): f for f in goals}
    ready: dict[str, tuple[str, int]] = {}  # what a chain wants somewhere first: thing -> place, steps until then
    for chain in chains:
        earlier = [f for group in chain[:-1] for f in group if not state.holds((f,), crashes=False)]
        steps = 1 + max((_steps_for(state, f, fixed) for f in earlier), default=0)
        steps = max([steps, *(_steps_for(state, f, fixed) for f in chain[-1])])
        longest = max(longest, steps)
        left |= {(f.name, f.path, f.value): f for f in (*earlier, *chain[-1]) if not state.holds((f,), crashes=False)}
        ready |= {f.name: (f.value, steps) for group in chain for f in group if _is_place(f)}
    for fact in (f for facts in problem.goals for f in facts if _is_place(f) and f.name in ready):
        place, steps = ready[fact.name]
        if fact.value != place:  # first into the sink, and only then onto the plate
            left.setdefault((fact.name, fact.path, fact.value), fact)
            longest = max(longest, steps + (2 if fixed else 5 if len(problem.agents) == 1 else 3))
    return longest if fixed else max(longest, _shared_work(state, list(left.values())))


def actions_to_go(state: State) -> int:
    """About how many actions of robots are left to do under the strict rules; 0 where everything asked for is so.

    No bound, as an action that serves two things counts twice. But whatever brings one thing further lowers it, while
    the bound, a maximum over the things, stays as it is as long as another thing has as far to go.
    """
    problem = state.problem
    fixed = any("move" not in primitives for primitives in problem.primitives)
    left = {
        (f.name, f.path, f.value): f for facts in problem.goals for f in facts if not state.holds((f,), crashes=False)
    }
    first: dict[str, str] = {}  # what a chain wants somewhere else before: thing -> place
    for chain in (c for done, c in zip(state.done, problem.chains, strict=True) if not done):
        facts = [f for group in chain for f in group]
        left |= {(f.name, f.path, f.value): f for f in facts if not state.holds((f,), crashes=False)}
        first |= {f.name: f.value for f in facts if _is_place(f)}
    actions = 0
    for fact in left.values():
        later = _is_place(fact) and first.get(fact.name, fact.value) != fact.value
        actions += (3 if fixed else 5) if later else _actions_for(state, fact, fixed)
    into = {problem.asset_index.get(f.value) for f in left.values() if _is_place(f)}
    return actions + (_door_work(state) if any(i is not None and state.cell_shut[i] for i in into) else 0)


def _actions_for(state: State, fact: Fact, fixed: bool) -> int:
    """Actions that one fact needs, which is not so yet: to the thing, reach, grasp, carry, and put down or use."""
    asset = state.problem.asset_index.get(fact.name)
    if asset is None or not (_is_place(fact) or _is_switch(fact)) or (_is_place(fact) and "box" in fact.name):
        return 1
    carried = not fixed and not _is_switch(fact)
    if state.grasped[asset]:
        holder = next((i for i, things in enumerate(state.carried) if asset in things), 0)
        return 1 + (carried and state.agent_pos[holder] != fact.value)
    there = fixed or _anyone_at(state, asset)
    if _is_switch(fact) and not state.problem.portable[asset]:
        return 1 + (not there)
    if any(asset in things for things in state.reached):
        return 2 + carried
    return 3 + carried + (not there) + (_door_work(state) if is_shut_in(state, asset) else 0)


def _is_place(fact: Fact) -> bool:
    return fact.kind == "asset" and fact.path == "pos.name" and fact.wanted and not fact.aligned


def _is_switch(fact: Fact) -> bool:
    return fact.kind == "asset" and fact.path == "is_activated" and fact.wanted and fact.value is True


def _steps_for(state: State, fact: Fact, fixed: bool) -> int:
    """Steps that one fact alone needs, which is not so yet."""
    asset = state.problem.asset_index.get(fact.name)
    if asset is None or not (_is_place(fact) or _is_switch(fact)):
        return 1
    portable = state.problem.portable[asset]
    if _is_switch(fact) and not portable:
        return 1 if fixed or _anyone_at(state, asset) else 2
    if _is_place(fact) and "box" in fact.name:
        return 1  # it can also be pushed
    near = fixed or _is_at_a_start(state, asset) or _is_at_a_start(state, state.problem.asset_index.get(fact.value))
    last = 1 if _is_switch(fact) or near else 2  # use it in the hand; or carry it there and put it down
    if state.grasped[asset]:
        holder = next((i for i, things in enumerate(state.carried) if asset in things), 0)
        return 1 if state.agent_pos[holder] == fact.value else last
    if any(asset in things for things in state.reached):
        return 1 + last
    if is_shut_in(state, asset):
        alone = len(state.problem.agents) == 1
        return _door_work(state) + 2 + last + (alone and not fixed)
    return 2 + last + (not fixed and not _anyone_at(state, asset))


def _anyone_at(state: State, asset: int) -> bool:
    return any(stands_at(state, agent, asset) for agent in range(len(state.problem.agents)))


def _door_work(state: State) -> int:
    """Actions until something that is shut is open."""
    shut = [i for i, closed in enumerate(state.cell_shut[: len(state.cells)]) if closed]
    if any(door in things for things in state.reached for door in shut):
        return 1
    return 2 if any(_anyone_at(state, door) for door in shut) else 3


def _is_at_a_start(state: State, asset: int | None) -> bool:
    """Whether a thing lies at the first spot of a robot, which needs no Move to anything there."""
    return asset is not None and state.pos_name(asset) in state.problem.agent_index


def _shared_work(state: State, facts: list[Fact]) -> int:
    """All actions that the facts need, shared out evenly among the robots."""
    index, actions = state.problem.asset_index, 0
    destinations: dict[int, list[str]] = {}
    tools: set[int] = set()
    opened = False
    for fact in facts:
        asset = index.get(fact.name)
        if asset is None or "box" in fact.name:
            continue
        if _is_switch(fact):
            actions += 1
            if state.problem.portable[asset]:
                tools.add(asset)
            else:
                actions += not _anyone_at(state, asset)
        elif _is_place(fact):
            destinations.setdefault(asset, []).append(fact.value)
            door = index.get(fact.value)
            opened = opened or (door is not None and state.cell_shut[door])
    visited = set(state.agent_pos)  # where a robot stands, or will once it has grasped what lies there
    for asset in {*destinations, *tools}:
        actions += 2 * max(0, len(destinations.get(asset, ())) - 1)  # fetched once more
        if not state.grasped[asset]:
            opened = opened or is_shut_in(state, asset)
            reached = any(asset in things for things in state.reached)
            actions += 1 if reached else 2 + (not _anyone_at(state, asset))
            visited.add(state.pos_name(asset))
    for place in {place for places in destinations.values() for place in places}:
        actions += 1 + (place not in visited and not _is_at_a_start(state, index.get(place)))
    if opened:
        actions += _door_work(state)
    return -(-actions // len(state.problem.agents))
