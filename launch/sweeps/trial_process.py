"""Running a trial: in this process, or in one of its own."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from ..stages.run_folder import RunFolder, now
from .trial import Place, Trial, find_run

POLL_S = 0.5
GRACE_S = 60


def in_this_process(place: Place, trial: Trial) -> Trial:
    """Run a trial here, as `fulgurite run` would.

    Raises:
        KeyboardInterrupt, SystemExit: if the sweep is told to stop; the trial stays `running`.
    """
    from ..stages.runner import RunOptions, run_experiment
    from ..stages.termination import is_stop

    experiment = place.resolve(trial)
    words = place.words(trial)
    trial, new = place.begun(trial, experiment, now("milliseconds"))
    wandb = {"project": place.sweep.project, "entity": None, "group": place.folder.name, "tags": None}
    failure = None
    try:
        run_experiment(experiment, RunOptions(place.root, new, None, wandb, shlex.join(["fulgurite", *words])))
    except BaseException as error:
        if is_stop(error):
            raise
        failure = str(error) or type(error).__name__
    return place.ended(trial, experiment, failure)


class TrialProcess:
    """A trial as a process of its own, `fulgurite run …`, that ends with the process that made it (on Linux).

    Args:
        place: of the sweep.
        trial: to run; its file says `running` from now on.
        num_threads: for the process's arithmetic.
    """

    def __init__(self, place: Place, trial: Trial, num_threads: int) -> None:
        self.place, self.experiment = place, place.resolve(trial)
        self._wait_for_an_orphan()
        self._run: RunFolder | None = None
        self.trial, anew = place.begun(trial, self.experiment, now("milliseconds"))
        new = ["--new"] if anew else []
        self._not = find_run(place.root, self.experiment) if new else None
        self.log = place.folder / "logs" / f"{trial.id}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # a trial may start its own Ray, and has a W&B service of its own, as W&B's agent sees to as well
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "WANDB_SERVICE"}
        environment.setdefault("OMP_NUM_THREADS", str(num_threads))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fulgurite", *place.words(trial), *new],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
                preexec_fn=_end_with_the_parent if sys.platform == "linux" else None,
            )  # fmt: skip

    def _wait_for_an_orphan(self) -> None:
        """A sweep that was killed may have left this trial's process: it stops soon (on Linux), or runs to its end."""
        while (run := find_run(self.place.root, self.experiment)) and run.is_locked():
            time.sleep(POLL_S)

    def values(self) -> Iterator[list[float]]:
        """The metric's values so far, each time there are more; ends with the process."""
        told = 0
        changed: list[float] = []
        while True:
            running = self.process.poll() is None
            run = self._own_run()
            files = [run.path / s / "metrics.csv" for s in run.state["stages"]] if run else []
            times = [f.stat().st_mtime for f in files if f.is_file()]
            if run and (times != changed or not running):
                changed, found = times, self.place.series(run)
                if len(found) > told:
                    told = len(found)
                    yield found
            if not running:
                return
            time.sleep(POLL_S)

    def _own_run(self) -> RunFolder | None:
        if self._run is None:
            found = find_run(self.place.root, self.experiment)
            if found and not (self._not and found.path == self._not.path):
                self._run = found
        return self._run

    def end(self) -> Trial:
        """The trial once its process has ended by itself."""
        status = self.process.wait()
        return self.place.ended(self.trial, self.experiment, self._failure() if status else None)

    def stop(self) -> None:
        """Tell the process to stop in good order, and kill it if it does not; the trial's file stays as it is."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _failure(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = next((n for n in range(len(lines) - 1, -1, -1) if lines[n].startswith("fulgurite: ")), len(lines) - 1)
        return "\n".join(lines[max(told, 0) : told + 3]).removeprefix("fulgurite: ")[:400] or "it printed nothing"


def _end_with_the_parent() -> None:
    """Have the system send SIGTERM to this process when the one that made it is gone, however that ended."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
