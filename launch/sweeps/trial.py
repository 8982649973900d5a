"""One trial of a sweep: an ordinary run of the experiment with some settings changed, and a file that remembers it.

A trial is known by the digest of its parameters, so the same values are never run twice in a sweep. Its file,
`trials/<id>.json` in the sweep's folder, says how far it is:

    running   begun and cut off         -> go on with its run
    done      ended well                -> leave it
    stopped   cut off by hyperband      -> leave it
    failed    ended in an error         -> leave it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...datamodules.files import write_json
from ...registry import UserError
from ..config.experiment import Experiment, parse_flags, resolve
from ..records.metrics_csv import read_metrics
from ..records.record import read_record
from ..stages.estimate import duration
from ..stages.run_folder import RunFolder, all_runs, code_digest
from ..stages.run_folder import read as read_run
from .sweep_file import Sweep

SCHEMA_VERSION = 1
ENDED = ("done", "stopped", "failed")
OF_THE_MACHINE = ("GB free, the run needs", "No space left on device", "File too large", "Disk quota exceeded")


@dataclass(frozen=True)
class Trial:
    """What a trial's file holds.

    Attributes:
        id: digest of the parameters.
        parameters: settings by dotted key.
        state: running, done, stopped or failed; new if it has no file yet.
        begun: when it began, in UTC.
        run: its run folder, from the root of the runs.
        value: the metric; None where there is none, or it is not finite.
        steps: how many values of the metric it gave.
        seconds: what the run took.
        error: what went wrong.
        point: where in the search's space the parameters lie, for a search that learns.
        avoid: an earlier run of the same settings that is not its own, from the root of the runs.
    """

    id: str
    parameters: dict[str, Any]
    state: str = "new"
    begun: str = ""
    run: str | None = None
    value: float | None = None
    steps: int = 0
    seconds: float = 0.0
    error: str | None = None
    point: dict[str, Any] | None = None
    avoid: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)


def new_trial(parameters: dict[str, Any]) -> Trial:
    """A trial that has not begun."""
    text = json.dumps(parameters, sort_keys=True, default=str)
    return Trial(hashlib.sha256(text.encode()).hexdigest()[:8], parameters)


@dataclass(frozen=True)
class Place:
    """Where a sweep's trials live.

    Attributes:
        sweep: the sweep.
        folder: of the sweep.
        root: of all run folders.
        fresh: whether a trial may not take a run that was there before the sweep.
    """

    sweep: Sweep
    folder: Path
    root: Path
    fresh: bool

    def file(self, trial: Trial) -> Path:
        """The trial's file."""
        return self.folder / "trials" / f"{trial.id}.json"

    def load(self, trial: Trial) -> Trial:
        """The trial as its file has it; itself if there is none, or a damaged one."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = Trial(**json.loads(self.file(trial).read_text(encoding="utf-8")))
            if found.id == trial.id and found.schema_version == SCHEMA_VERSION:
                return found
        return trial

    def save(self, trial: Trial) -> Trial:
        """Write the trial's file; returns it."""
        write_json(self.file(trial), asdict(trial))
        return trial

    def all(self) -> list[Trial]:
        """All trials that have begun, in the order in which they did."""
        found = [self.load(Trial(f.stem, {})) for f in (self.folder / "trials").glob("*.json")]
        return sorted((t for t in found if t.begun), key=lambda t: (t.begun, t.id))

    def settings_file(self, trial: Trial) -> Path:
        """The trial's parameters as a file that lies over the experiment; written if it is not there."""
        file = self.folder / "settings" / f"{trial.id}.json"
        if not file.is_file():
            write_json(file, trial.parameters)
        return file

    def resolve(self, trial: Trial) -> Experiment:
        """The experiment with the trial's parameters.

        Raises:
            UserError: for a key or value that the experiment does not take.
        """
        flags, files = split_words(self.sweep.fixed)
        return resolve(self.sweep.experiment, parse_flags(flags), [*files, self.settings_file(trial)])

    def words(self, trial: Trial) -> list[str]:
        """The words of the command line after `fulgurite` that run the trial."""
        return [
            "run", self.sweep.experiment, *self.sweep.fixed, "-c", str(self.settings_file(trial)),
            "--output", str(self.root), "--wandb", self.sweep.project, "--wandb-group", self.folder.name,
        ]  # fmt: skip

    def needs_new_run(self, trial: Trial, experiment: Experiment) -> bool:
        """Whether the trial may not go on with the newest run of the same settings: one that is not this sweep's own
        counts only if it ran with the code of now.
        """
        found = find_run(self.root, experiment)
        if found is None or trial.state == "running":
            return found is not None and trial.avoid == self.name_of(found)
        return self.fresh or found.state["code"] != code_digest()

    def begun(self, trial: Trial, experiment: Experiment, begun: str) -> tuple[Trial, bool]:
        """The trial as it begins, saved, and whether it needs a new run; the one that it may not take is noted."""
        new, found = self.needs_new_run(trial, experiment), find_run(self.root, experiment)
        avoid = self.name_of(found) if new and found is not None else trial.avoid
        return self.save(replace(trial, state="running", begun=trial.begun or begun, avoid=avoid)), new

    def name_of(self, run: RunFolder) -> str:
        """A run folder from the root of the runs."""
        return run.path.relative_to(self.root).as_posix()

    def value_of(self, run: RunFolder) -> float | None:
        """The sweep's metric of a finished run; where several stages have it, the last one's.

        Raises:
            UserError: if the run has no such metric; with those that it has.
        """
        name = self.sweep.metric
        if name is None:
            return None
        record = read_record(run.path)
        for metrics in (record["metrics"], *(s["metrics"] for s in reversed(record["stages"]))):
            if name in metrics:
                value: float | None = metrics[name]
                return value
        raise UserError(
            f"the run has no metric '{name}'\nIt has {', '.join(sorted(record['metrics'])) or 'none'}."[:400]
        )

    def series(self, run: RunFolder) -> list[float]:
        """The values of the sweep's metric so far, oldest first."""
        stages, name = list(run.state["stages"]), str(self.sweep.metric)
        wanted = {(stage, name) for stage in stages} | {tuple(name.split("/", 1))}
        return [
            value
            for stage in stages
            for _, _, metric, value in read_metrics(run.path / stage / "metrics.csv")
            if (stage, metric) in wanted
        ]

    def series_of(self, trial: Trial) -> list[float]:
        """The values of a trial that has ended; none if its run is gone."""
        run = read_run(self.root / trial.run) if trial.run else None
        return self.series(run)[: trial.steps] if run else []

    def ended(self, trial: Trial, experiment: Experiment, failure: str | None) -> Trial:
        """The trial after its run has ended, saved.

        Raises:
            UserError: if the disk is full; the trial then goes on when the sweep is taken up again.
        """
        run = find_run(self.root, experiment)
        value = None
        if failure is None and run is not None and run.finished:
            try:
                value = self.value_of(run)
            except UserError as error:
                failure = str(error)
        elif failure is None:
            failure = "its run did not end"
        if failure and any(words in failure for words in OF_THE_MACHINE):  # the trial's file goes on saying `running`
            self.save(self.with_run(replace(trial, error=failure), run))
            first = failure.partition("\n")[0]
            raise UserError(f"trial {trial.id}: {first}\nMake room and give the same command again: it goes on there.")
        steps = len(self.series(run)) if run and self.sweep.metric else 0
        state = "failed" if failure else "done"
        return self.save(self.with_run(replace(trial, state=state, value=value, steps=steps, error=failure), run))

    def with_run(self, trial: Trial, run: RunFolder | None) -> Trial:
        """The trial with its run folder and what that took."""
        if run is None:
            return trial
        seconds = sum(s["seconds"] for s in run.state["stages"].values())
        return replace(trial, run=self.name_of(run), seconds=seconds)


def split_words(words: tuple[str, ...]) -> tuple[list[str], list[Path]]:
    """The settings and the files among the words that a sweep's command gives every trial.

    Raises:
        UserError: for a file that is not there.
    """
    settings, files, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-c", "--config") and rest:
            files.append(Path(rest.pop(0)))
            if not files[-1].is_file():
                raise UserError(f"no such file: {files[-1]}\nIt stands in the sweep's command, after -c.")
        else:
            settings.append(word)
    return settings, files


def find_run(root: Path, experiment: Experiment) -> RunFolder | None:
    """The newest run of an experiment with just these settings."""
    home, digest = root / experiment.name, experiment.digest()
    return next((r for r in reversed(list(all_runs(home))) if r.state["digest"] == digest), None)


def said(trial: Trial) -> str:
    """A trial's parameters in a line."""
    return ", ".join(f"{k}={v}" for k, v in trial.parameters.items())


def told(sweep: Sweep, trial: Trial) -> str:
    """How a trial ended, in a line."""
    if trial.state == "failed":
        return f"trial {trial.id} failed: {(trial.error or '').partition(chr(10))[0]}"
    value = "not finite" if trial.value is None else f"{trial.value:.4g}"
    early = f" early, after {trial.steps} values" if trial.state == "stopped" else ""
    of = f", {sweep.metric} {value}" if sweep.metric else ""
    return f"trial {trial.id} {trial.state}{early} in {duration(trial.seconds)}{of}"
