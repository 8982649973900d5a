"""The shortest plan for a task: A* over the checker's own state, all robots acting at once.

Under the strict rules no plan is shorter than the one found; tests compare it with trying everything.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from .actions import Command, clash, refusal
from .bounds import steps_to_go
from .chains import follow, prepared, unmet
from .effects import apply
from .plans import Step
from .problem import Problem
from .rules import RELEASED, STRICT, Rules
from .state import ReleasedCheckerError, State
from .vocabulary import places

MAX_STATES = 100_000


class NoPlanError(Exception):
    """No plan was found; the text says why."""


@dataclass
class _Node:
    state: State
    parent: _Node | None
    commands: list[Command]
    num_steps: int


def shortest_plan(
    problem: Problem, areas: tuple[str, ...] | None = None, *, strict: bool = True, handovers: bool = False,
    max_steps: int = 16,
) -> list[Step]:  # fmt: skip
    """A plan with as few steps as possible, and of these one with few actions.

    Args:
        problem: the task.
        areas: where each asset starts; the first choice of each if not given.
        strict: plan by the mended rules; by the released ones, with their loopholes, it takes far longer, and things
            pushed together with what stood beside them are not told apart.
        handovers: let robots hand things over, which prompts do not offer and the released checker can't judge.
        max_steps: longer plans are not looked for.

    Raises:
        NoPlanError: if there is none, or none was found among `MAX_STATES` states.
    """
    rules = STRICT if strict else RELEASED
    start = State.start(problem, areas or tuple(choice[0] for choice in problem.starts))
    moves = _candidates(problem, handovers)
    count = itertools.count()
    first = _Node(start, None, [], 0)
    waiting = [(steps_to_go(start, rules), 0, next(count), first)]
    seen = {start.key(): 0}
    while waiting:
        estimate, num_actions, _, node = heapq.heappop(waiting)
        if unmet(node.state, rules) is None:
            return _steps(node)
        if seen[node.state.key()] < node.num_steps:
            continue
        held = None if rules.same_step or all(node.state.done) else prepared(node.state)
        for commands in _joint_actions(node.state, moves, rules):
            state = _after(node.state, commands, held, rules)
            if state is None:
                continue
            key, num_steps = state.key(), node.num_steps + 1
            if seen.get(key, max_steps + 1) <= num_steps:
                continue
            bound = num_steps + steps_to_go(state, rules)
            if bound > max_steps:
                continue
            seen[key] = num_steps
            if len(seen) > MAX_STATES:
                raise NoPlanError(f"no plan among the first {MAX_STATES} states")
            actions = num_actions + len(commands)
            heapq.heappush(
                waiting, (max(bound, estimate), actions, next(count), _Node(state, node, commands, num_steps))
            )
    raise NoPlanError(f"no plan of at most {max_steps} steps")


def _candidates(problem: Problem, handovers: bool) -> list[list[Command]]:
    """For each robot every command that could be of use."""
    facts = [f for facts in (*problem.goals, *itertools.chain(*problem.chains)) for f in facts]
    switched = {f.name for f in facts if f.path == "is_activated"}
    closed = any("isolated" in f.path for f in facts)
    named = {f.value for f in facts if f.path == "pos.name"} | set(itertools.chain(*problem.starts))
    spots = {place.spot for place in places().values()}
    free = sorted(n for n in named if n not in problem.asset_index and n not in problem.agent_index and n not in spots)
    found = []
    for agent, primitives in enumerate(problem.primitives):
        assets, others = range(len(problem.assets)), [-1 - i for i in range(len(problem.agents)) if i != agent]
        ours: list[Command] = []
        for name in sorted(primitives):
            if name == "move":
                targets: list[tuple[int | str, ...]] = [(t,) for t in (*assets, *free, *others)]
            elif name == "place":
                targets = [(t,) for t in (*assets, *free)]
            elif name == "handover" and not handovers:
                continue
            elif name in ("push", "handover"):
                to = others if name == "handover" else [*others, *assets]
                targets = [
                    (a, t) for a in assets for t in to if a != t and (name == "handover" or "box" in problem.assets[a])
                ]
            elif name == "interact":
                targets = [(a,) for a in assets if problem.assets[a] in switched]
            elif name == "close":
                targets = [(a,) for a in assets if closed]
            else:
                targets = [(a,) for a in assets]
            ours += [Command(name, agent, t) for t in targets]
        found.append(ours)
    return found


def _joint_actions(state: State, moves: list[list[Command]], rules: Rules) -> list[list[Command]]:
    """Every set of commands, at most one a robot, that the state allows; none of them without effect."""
    choices = []
    for candidates in moves:
        ours: list[Command | None] = [None]
        for command in candidates:
            if _is_idle(state, command) or _refused(state, command, rules):
                continue
            ours.append(command)
        choices.append(ours)
    found = []
    for combination in itertools.product(*choices):
        commands = [c for c in combination if c is not None]
        if commands and not _clashes(state, commands, rules):
            found.append(commands)
    return found


def _is_idle(state: State, command: Command) -> bool:
    """Whether it would change nothing that matters: going where one is, reaching the same thing again."""
    target = command.targets[0]
    if command.name == "move":
        return state.agent_pos[command.agent] == state.name(target)
    if command.name == "reach" and isinstance(target, int):
        useless = not state.problem.portable[target] and not (
            state.problem.containers[target] and state.cell_shut[target]
        )
        return useless or target in state.reached[command.agent]
    return False


def _refused(state: State, command: Command, rules: Rules) -> bool:
    try:
        return refusal(state, command, rules) is not None
    except ReleasedCheckerError:
        return True


def _clashes(state: State, commands: list[Command], rules: Rules) -> bool:
    try:
        return clash(state, commands, rules) is not None
    except ReleasedCheckerError:
        return True


def _after(state: State, commands: list[Command], held: list[bool] | None, rules: Rules) -> State | None:
    """The state after a step; None if it breaks the order that a chain asks for."""
    after = state.copy()
    try:
        apply(after, commands, rules, state)
        return after if follow(after, held, rules) is None else None
    except ReleasedCheckerError:
        return None


def _steps(node: _Node | None) -> list[Step]:
    steps: list[Step] = []
    while node is not None and node.parent is not None:
        state = node.parent.state
        steps.append(
            {
                state.problem.agents[c.agent]: ",".join((c.name.capitalize(), *map(state.name, c.targets)))
                for c in node.commands
            }
        )
        node = node.parent
    return steps[::-1]
