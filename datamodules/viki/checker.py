"""Whether a plan can be carried out and does what the record asks (arXiv 2506.09049, section 4, and its code)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .actions import Command, clash, refusal
from .chains import follow, prepared, unmet
from .effects import apply
from .plans import Step, find_answer, literal, steps_of
from .problem import Problem, ProblemError
from .rules import RELEASED, STRICT, Rules
from .state import ReleasedCheckerError, State

ERROR_CODES = (
    "INVALID_COMMAND", "NOT_FOUND_ENTITY", "ACTION_NOT_FEASIBLE", "ACTION_NOT_COMPATIBLE",
    "FAILED_TEMPORAL_CONSTRAINT", "FAILED_GOAL_CONSTRAINT", "UNREADABLE_PLAN", "BROKEN_RECORD",
    "RELEASED_CHECKER_RAISES",
)  # fmt: skip
"""The first six are the released checker's own."""
_QUIET = frozenset({"move", "reach"})
_LONG = 200  # characters; longer commands are nonsense, and not kept for the next time


@dataclass(frozen=True)
class Verdict:
    """What became of a plan.

    Attributes:
        feasible: every step could be carried out, and in an order that the record allows.
        complete: after it, everything asked for is true.
        code: of `ERROR_CODES`; None if the plan is right.
        step: number of the step that failed, from 1; None where no single one did.
        sentence: what happened, for people.
        num_steps: steps that count.
    """

    feasible: bool
    complete: bool
    code: str | None
    step: int | None
    sentence: str
    num_steps: int

    @property
    def ok(self) -> bool:
        """Whether the plan does what was asked."""
        return self.feasible and self.complete


class _Failure(Exception):
    def __init__(self, code: str, sentence: str, step: int | None = None) -> None:
        super().__init__(sentence)
        self.code, self.step = code, step
        self.sentence = " ".join(sentence.split())  # a name of the plan's may hold line breaks


def check_plan(
    record: Problem | Mapping[str, Any], plan: str | Sequence[Any], *, strict: bool = False, seed: int = 0,
    watch: list[State] | None = None,
) -> Verdict:  # fmt: skip
    """Run a plan in the symbolic kitchen. Never raises, whatever the plan is.

    Args:
        record: a task, or a ground truth in the released form.
        plan: a model's answer (what stands between its answer tags counts, or all of it if there are none), or the list
            of its steps [{"step": 1, "actions": {"R1": ["Move", "apple"]}}, ...].
        strict: with the released checker's faults mended (`rules.STRICT`); without, exactly as released.
        seed: of the start areas, where a record leaves a choice; strict tries all.
        watch: gets a copy of the state at the start and after each step that could be carried out.

    Returns:
        The verdict. A plan that is longer than the record's own is no failure here; the reward sees to that.
    """
    rules = STRICT if strict else RELEASED
    try:
        problem = record if isinstance(record, Problem) else Problem.read(record)
    except ProblemError as error:
        return Verdict(False, False, "BROKEN_RECORD", None, str(error), 0)
    if isinstance(plan, str):
        answer = find_answer(plan)
        try:
            plan = literal(plan if answer is None else answer)
        except ValueError as error:
            return Verdict(False, False, "UNREADABLE_PLAN", None, f"the answer is no list of steps: {error}", 0)
    try:
        steps = steps_of(plan) if rules.free_waiting else _all_steps(plan)
    except _Failure as failure:
        return Verdict(False, False, failure.code, failure.step, failure.sentence, 0)
    if not steps:
        return Verdict(False, False, "UNREADABLE_PLAN", None, "the answer has no step with an action", 0)
    return check_steps(problem, steps, rules, seed, watch)


def check_steps(
    problem: Problem, steps: Sequence[Step], rules: Rules, seed: int = 0, watch: list[State] | None = None
) -> Verdict:
    """Run steps that were read already under the rules given; see `check_plan`."""
    draws = [problem.drawn_start(seed)] if rules.one_draw else problem.all_starts()
    try:
        parsed = [
            [(robot, _words(command, robot, number)) for robot, command in step.items()]
            for number, step in enumerate(steps, 1)
        ]
        for areas in draws:
            run = _Run(problem, areas, rules)
            if watch is not None:
                watch[:] = [run.state.copy()]
            for number, commands in enumerate(parsed, 1):
                run.step(commands, number)
                if watch is not None:
                    watch.append(run.state.copy())
            run.finish()
    except _Failure as failure:
        feasible = failure.code in ("FAILED_GOAL_CONSTRAINT",) or (
            failure.code == "FAILED_TEMPORAL_CONSTRAINT" and failure.step is None
        )
        return Verdict(feasible, False, failure.code, failure.step, failure.sentence, len(steps))
    return Verdict(True, True, None, None, "the plan does what was asked", len(steps))


class _Run:
    """A plan under way: the state, and whether the chains of the record came true.

    Args:
        problem: the task.
        areas: where each asset starts.
        rules: what holds.
    """

    def __init__(self, problem: Problem, areas: tuple[str, ...], rules: Rules) -> None:
        self.state, self.rules = State.start(problem, areas), rules
        self._followed = not problem.chains

    def command(self, robot: Any, words: Sequence[str]) -> Command:
        """The command with its names looked up.

        Raises:
            _Failure: if a name is nothing here.
            ReleasedCheckerError: where the released checker raises.
        """
        state, rules = self.state, self.rules
        name = words[0]
        free = name in ("move", "place")
        agent, entities = state.problem.agent_index.get(robot), state.problem.entities
        if agent is None and not (rules.crashes and (free or robot in entities)):
            raise _Failure("NOT_FOUND_ENTITY", f"there is no robot '{robot}'")
        targets: list[int | str] = []
        for word in words[1:]:
            entity = entities.get(word)
            if entity is None and not (free and (rules.any_place or word in state.problem.place_names)):
                raise _Failure("NOT_FOUND_ENTITY", f"there is no '{word}' here")
            targets.append(word if entity is None else entity)
        if agent is None:
            raise ReleasedCheckerError(f"'{robot}' is no robot here")
        return Command(name, agent, tuple(targets))

    def step(self, actions: Sequence[tuple[Any, Sequence[str]]], number: int) -> None:
        """Carry out one step.

        Raises:
            _Failure: if it can't be.
        """
        state, rules = self.state, self.rules
        robot: Any = ""
        words: Sequence[str] = ()
        try:
            commands, names = [], []
            for robot, words in actions:
                command = self.command(robot, words)
                reason = refusal(state, command, rules)
                if reason is not None:
                    raise _Failure("ACTION_NOT_FEASIBLE", reason)
                commands.append(command)
                names.append(command.name)
            robot = ""
            reason = clash(state, commands, rules)
            if reason is not None:
                raise _Failure("ACTION_NOT_COMPATIBLE", reason)
            if self._followed and state.problem.chains_of_assets and _QUIET.issuperset(names):
                apply(state, commands, rules)  # the facts are as they were when they were last looked at
                return
            held = None if rules.same_step or all(state.done) else prepared(state)
            apply(state, commands, rules)
            reason = follow(state, held, rules)
            self._followed = True
            if reason is not None:
                raise _Failure("FAILED_TEMPORAL_CONSTRAINT", reason)
        except _Failure as failure:
            who = f", {robot} {' '.join(map(str, words))}" if robot else ""
            raise _Failure(failure.code, f"step {number}{who}: {failure.sentence}", number) from None
        except ReleasedCheckerError as error:
            text = f"step {number}: the released checker raises: {error}"
            raise _Failure("RELEASED_CHECKER_RAISES", text, number) from None

    def finish(self) -> None:
        """See whether everything asked for is true.

        Raises:
            _Failure: if not.
        """
        try:
            found = unmet(self.state, self.rules)
        except ReleasedCheckerError as error:
            raise _Failure("RELEASED_CHECKER_RAISES", f"at the end the released checker raises: {error}") from None
        if found is not None:
            raise _Failure(*found)


def _words(command: str, robot: Any, number: int) -> tuple[str, ...]:
    """`Move, apple` as ("move", "apple").

    Raises:
        _Failure: if a part is empty or holds a comma or angle bracket.
    """
    words = (_split if len(command) < _LONG else _split.__wrapped__)(command)
    if not words:
        raise _Failure("INVALID_COMMAND", f"step {number}, {robot}: '{command}' is no command", number)
    return words


@functools.lru_cache(4096)
def _split(command: str) -> tuple[str, ...]:
    """The words of a command, its primitive in lower case; none if it is no command."""
    parts = command.split(",")
    if "" in parts or "<" in command or ">" in command:
        return ()
    first, *others = (part.strip() for part in parts)
    return first.lower(), *others


def _all_steps(data: Any) -> list[Step]:
    """The steps of a plan, those without an action too.

    Raises:
        _Failure: if a row is no step.
    """
    if not isinstance(data, list | tuple):
        raise _Failure("UNREADABLE_PLAN", "the answer is no list of steps")
    steps = []
    for number, row in enumerate(data, 1):
        actions = row.get("actions") if isinstance(row, Mapping) else None
        if not isinstance(actions, Mapping) or not all(
            isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
            for words in actions.values()
        ):
            text = f'step {number} is not {{"step": {number}, "actions": {{robot: [primitive, target]}}}}'
            raise _Failure("INVALID_COMMAND", text, number)
        steps.append({robot: ",".join(words) for robot, words in actions.items()})
    return steps
