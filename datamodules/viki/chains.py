"""What has to come true in order, and what has to be true at the end."""

from __future__ import annotations

from .problem import Facts
from .rules import Rules
from .state import State


def prepared(state: State) -> list[bool]:
    """For each chain, whether all its facts but the last are true now."""
    return [all(state.holds(facts, crashes=False) for facts in chain[:-1]) for chain in state.problem.chains]


def follow(state: State, held: list[bool] | None, rules: Rules) -> str | None:
    """Mark the chains that have come true by the step just taken, in `state.done`.

    Args:
        state: after the step.
        held: what `prepared` said before the step, where the facts of a chain may not come true in one step.
        rules: what holds.

    Returns:
        What came true too early; None if nothing did.

    Raises:
        ReleasedCheckerError: where the released checker raises, with `rules.crashes`.
    """
    for number, chain in enumerate(state.problem.chains):
        if state.done[number]:
            continue
        so_far = True
        for facts in chain:
            if not state.holds(facts, crashes=rules.crashes):
                so_far = False
            elif not so_far:
                return f"{say(facts)} came true too early"
        if so_far and held is not None and not held[number]:
            return f"{say(chain[-1])} came true in the same step as what it needs"
        state.done[number] = so_far
    return None


def unmet(state: State, rules: Rules) -> tuple[str, str] | None:
    """Error code and sentence of the first thing asked for that is not so; None if all is.

    Raises:
        ReleasedCheckerError: where the released checker raises, with `rules.crashes`.
    """
    for done, chain in zip(state.done, state.problem.chains, strict=True):
        if not done:
            return "FAILED_TEMPORAL_CONSTRAINT", f"it never came to this: {', then '.join(map(say, chain))}"
    for facts in state.problem.goals:
        if not state.holds(facts, crashes=rules.crashes):
            return "FAILED_GOAL_CONSTRAINT", f"at the end it is not so: {say(facts)}"
    return None


def say(facts: Facts) -> str:
    """Facts in words."""
    words = []
    for fact in facts:
        verb = "is" if fact.wanted else "is not"
        if fact.path == "is_activated" and fact.value is True:
            words.append(f"{fact.name} {verb} on")
        elif fact.path == "pos.name":
            words.append(f"{fact.name} {verb} at {fact.value}")
        else:
            words.append(f"{fact.path} of {fact.name} {verb} {fact.value}")
    return " and ".join(words)
