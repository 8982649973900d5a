"""The trials of a grid or random search: the sweep file alone decides them, so a resumed sweep has the same."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

from ...registry import UserError
from .sweep_file import Sweep
from .trial import Place, Trial, new_trial

MOST_TRIALS = 10_000
DRAWS_PER_TRIAL = 50


def listed_trials(sweep: Sweep) -> list[Trial]:
    """All trials of a grid (in the order of its product) or random search, each set of parameters once.

    Raises:
        UserError: for more than ten thousand.
    """
    points = _grid(sweep) if sweep.method == "grid" else _random(sweep)
    found: dict[str, Trial] = {}
    for parameters in points:
        trial = new_trial(parameters)
        found.setdefault(trial.id, trial)
        if len(found) == sweep.run_cap:
            break
        if len(found) > MOST_TRIALS:
            raise UserError(f"{sweep.file}: more than {MOST_TRIALS:,} trials\nSet a limit: run_cap: 100")
    return list(found.values())


def _grid(sweep: Sweep) -> Iterator[dict[str, Any]]:
    names = [p.name for p in sweep.parameters]
    for values in itertools.product(*(p.values or () for p in sweep.parameters)):
        yield dict(zip(names, values, strict=True))


def _random(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Draws that depend on the sweep's content alone; a small space may hold fewer trials than asked for."""
    seed = int(hashlib.sha256(sweep.digest().encode()).hexdigest()[:16], 16)
    draws = random.Random(seed)
    for _ in range(DRAWS_PER_TRIAL * (sweep.run_cap or 1)):
        yield {p.name: p.at(draws.random()) for p in sweep.parameters}


def check_trials(place: Place, trials: list[Trial]) -> None:
    """Resolve every trial, so that a misspelt parameter or an impossible value is told before the first one starts.

    Raises:
        UserError: as `resolve`; or if two trials come out the same, since a parameter then changes nothing.
    """
    seen: dict[str, Trial] = {}
    for trial in trials:
        digest = place.resolve(trial).digest()
        if digest in seen:
            other = seen[digest].parameters
            names = ", ".join(k for k, v in trial.parameters.items() if v != other.get(k))
            raise UserError(
                f"{place.sweep.file}: {names} changes nothing: two trials come out the same\n"
                f"fulgurite explain {place.sweep.experiment}   shows where each value comes from"
            )
        seen[digest] = trial
