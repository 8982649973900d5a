"""What Ray Tune calls: a trial in steps, and a watcher of all. Imports Ray, so only tune.py imports it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from filelock import FileLock
from ray import tune
from rich.console import Console

from .parameters import Parameter
from .sweep_file import Sweep
from .trial import ENDED, Place, Trial, find_run, new_trial, said, told
from .trial_process import TrialProcess

VALUE, TRIAL = "value", "trial"
console = Console(stderr=True, highlight=False, soft_wrap=True)


class TrialSteps(tune.Trainable):
    """A trial as Tune sees it: one step a value of the metric, the last one when the run has ended."""

    def setup(self, config: dict[str, Any], place: Place, listed: dict[str, Trial], agents: int) -> None:
        """Start the trial's process; one that has ended before is only told again.

        Args:
            config: Tune's.
            place: of the sweep.
            listed: trials of a grid or random search by their ids.
            agents: trials at once, among which the cores are divided.
        """
        self.place = place
        wanted = trial_of(place.sweep, listed, config)
        # a search may propose the same values twice at a time: the second one waits, and is told what the first found
        self.lock = FileLock(place.file(wanted).with_suffix(".lock"))
        self.lock.acquire()
        self.trial = place.load(wanted)
        self.process: TrialProcess | None = None
        self.told = 0
        if self.trial.state in ENDED:
            self.values: Iterator[list[float]] = iter([place.series_of(self.trial)])
        else:
            self.process = TrialProcess(place, self.trial, max(1, (os.cpu_count() or 1) // agents))
            self.values = self.process.values()
        self.found: list[float] = []

    def step(self) -> dict[str, Any]:
        """The next value, once there is one; without early termination, the last one.

        Raises:
            RuntimeError: if the trial failed.
        """
        early = self.place.sweep.early is not None
        while early and self.told >= len(self.found) and (more := next(self.values, None)) is not None:
            self.found = more
        if self.told < len(self.found):
            self.told += 1
            return {VALUE: self._seen(self.found[self.told - 1])}
        if self.process is not None:
            self.trial = self.process.end()
        if self.trial.state == "failed":
            raise RuntimeError(self.trial.error)
        return {VALUE: self._seen(self.trial.value), "done": True}

    def _seen(self, value: float | None) -> float:
        """What is not finite, or not there, counts as the worst."""
        if value is None or not math.isfinite(value):
            return -math.inf if self.place.sweep.maximize else math.inf
        return value

    def cleanup(self) -> None:
        """Stop the process, if it has not ended."""
        if self.process is not None:
            self.process.stop()
        self.lock.release()


class Watcher(tune.Callback):
    """Prints how each trial begins and ends, and notes in its file that it was cut off early.

    Args:
        place: of the sweep.
        listed: trials of a grid or random search by their ids.
    """

    def __init__(self, place: Place, listed: dict[str, Trial]) -> None:
        self.place, self.listed = place, listed
        self._told: set[str] = {t.id for t in place.all() if t.state in ENDED}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print the parameters."""
        found = self._of(trial)
        if found.id not in self._told:
            console.print(f"trial {found.id} begins: {said(found)}", markup=False)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that Tune counts as complete while its run goes on was cut off."""
        found, last = self._of(trial), trial.last_result
        if found.state == "running":
            run = find_run(self.place.root, self.place.resolve(found))
            value = last.get(VALUE)
            found = replace(
                self.place.with_run(found, run), state="stopped",
                value=value if value is not None and math.isfinite(value) else None,
                steps=int(last.get("training_iteration", 0)), seconds=float(last.get("time_total_s", 0.0)),
            )  # fmt: skip
            self.place.save(found)
        self._tell(found)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that says nothing of an error was lost with Ray's process."""
        found = self._of(trial)
        if found.state not in ENDED and not found.error:  # an error there is the machine's, and it goes on later
            found = self.place.save(replace(found, state="failed", error="Ray lost the trial's process"))
        self._tell(found)

    def _of(self, trial: Any) -> Trial:
        return self.place.load(trial_of(self.place.sweep, self.listed, trial.config))

    def _tell(self, trial: Trial) -> None:
        if trial.id not in self._told:
            self._told.add(trial.id)
            console.print(told(self.place.sweep, trial), markup=False)


def parameters_at(parameters: Sequence[Parameter], point: dict[str, Any]) -> dict[str, Any]:
    """The values at a point that the search proposes: an index for a choice, else a number in [0, 1]."""
    return {
        p.name: (p.values or ())[point[p.name]] if p.is_choice else p.at(min(point[p.name], 1 - 1e-9))
        for p in parameters
    }


def trial_of(sweep: Sweep, listed: dict[str, Trial], config: dict[str, Any]) -> Trial:
    """The trial that a configuration of Tune's means."""
    if TRIAL in config:
        return listed[config[TRIAL]]
    return replace(new_trial(parameters_at(sweep.parameters, config)), point=config)
