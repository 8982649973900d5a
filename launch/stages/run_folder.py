"""Run folders `runs/<experiment>/<time>-<id>/`: made, found again, locked, read.

`run.json` holds what the stage runner knows: the experiment's digest, and for each stage its state, attempts and times.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...datamodules.files import write_json
from ...registry import ROOT, UserError, package_files, plugin_files
from ..config.experiment import Experiment, Stage
from ..config.key_check import ALLOWED_PACKAGES, user_packages
from .reuse import lost, take_over

SCHEMA_VERSION = 1
KEYS = {"experiment", "digest", "seed", "created", "code", "stages"}
DEFAULT_ROOT = Path("runs")
_ELSEWHERE = "Free some space, or choose another place with --output FOLDER."


def now(timespec: str = "seconds") -> str:
    """The time in UTC, to the second or as `datetime.isoformat` says it, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec)


@dataclass
class RunFolder:
    """One run on disk. `state` is run.json's content; `save` writes it."""

    path: Path
    state: dict[str, Any] = field(default_factory=dict)

    def stage(self, name: str) -> dict[str, Any]:
        """A stage's entry in run.json; made when first asked for."""
        entry: dict[str, Any] = self.state["stages"].setdefault(
            name, {"state": "pending", "attempts": 0, "seconds": 0.0}
        )
        return entry

    def save(self) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", self.state)

    def refresh(self) -> None:
        """Read run.json again, once the lock is held: another process may have gone on with the run meanwhile.

        Raises:
            UserError: if it was deleted meanwhile.
        """
        found = read(self.path)
        if found is None:
            raise UserError(f"{self.path}: another process has deleted this run\nGive the same command again.")
        self.state = found.state

    @property
    def finished(self) -> bool:
        """Whether all stages ended well."""
        stages = self.state["stages"].values()
        return bool(stages) and all(s["state"] == "done" for s in stages)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """While entered, hold the run's lock; the system frees it when the process dies, however it dies.

        Raises:
            UserError: if another process works in this folder, or it can't be written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path}: another process is running this experiment\n"
                "Wait for it, or start a separate run with --new."
            ) from None
        except OSError as error:
            raise UserError(f"{self.path}: can't be written: {error.strerror}\n{_ELSEWHERE}") from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a process works in this folder now."""
        try:
            with FileLock(self.path / ".lock").acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that nobody can write
            return False


def read(path: Path) -> RunFolder | None:
    """The run in a folder; None if there is none, or its run.json is of another schema or damaged."""
    try:
        state = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(state, dict) and state.get("schema_version") == SCHEMA_VERSION and state.keys() >= KEYS
    if not whole or not isinstance(state["created"], str) or not isinstance(state["stages"], dict):
        return None
    entries = state["stages"].values()
    told = all(isinstance(e, dict) and isinstance(e.get("state"), str) for e in entries)
    counted = told and all(type(e.get(key)) in (int, float) for e in entries for key in ("attempts", "seconds"))
    return RunFolder(path, state) if counted else None


def all_runs(root: Path) -> Iterator[RunFolder]:
    """Every run below `root`, oldest first."""
    found = [run for file in root.rglob("run.json") if (run := read(file.parent))]
    yield from sorted(found, key=lambda run: (run.state["created"], str(run.path)))


@contextlib.contextmanager
def choose(experiment: Experiment, root: Path, new: bool) -> Iterator[RunFolder]:
    """The folder to work in, locked while entered: the newest run of the same digest whose inputs are unchanged, else a
    new one, which takes over the leading stages that an earlier run, of this experiment or another, has finished in the
    same way (reuse.take_over).

    An unfinished run that lacks files of a finished stage is left alone: the new one takes over the stages before it.

    Raises:
        UserError: if another process works in the folder, or it can't be made.
    """
    home = root / experiment.name
    earlier = [r for r in all_runs(home) if r.path.parent == home]
    same = [r for r in earlier if r.state["digest"] == experiment.digest()] if not new else []
    unchanged = [r for r in same if all(_unchanged(r, s) for s in experiment.stages)]
    unfinished = [r for r in unchanged if not r.finished]
    fit = [r for r in unfinished if not lost(r, experiment)] or [r for r in unchanged if r.finished]
    if fit:
        run = fit[-1]
        with run.lock():
            run.refresh()
            yield run
        return
    if unfinished:
        print(f"{unfinished[-1].path}: {lost(unfinished[-1], experiment)}; a new run begins", file=sys.stderr)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    run = RunFolder(home / f"{stamp}-{secrets.token_hex(2)}")
    try:
        run.path.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{run.path}: can't be made: {error.strerror}\n{_ELSEWHERE}") from None
    with run.lock():
        try:
            _begin(run, experiment, [] if new else list(all_runs(root)))
        except OSError as error:
            shutil.rmtree(run.path, ignore_errors=True)
            raise UserError(f"{run.path}: can't be written: {error.strerror or error}\n{_ELSEWHERE}") from None
        yield run


def _begin(run: RunFolder, experiment: Experiment, earlier: list[RunFolder]) -> None:
    run.state = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.name,
        "digest": experiment.digest(),
        "seed": experiment.seed,
        "created": now("milliseconds"),  # tells the newest of several runs begun in one second
        "code": code_digest(),
        "stages": {s.name: {"state": "pending", "attempts": 0, "seconds": 0.0} for s in experiment.stages},
    }
    run.save()  # first: if this is cut off, the folder is an ordinary run that has not begun
    if earlier:
        take_over(experiment, run, earlier, {s.name: inputs_digest(s) for s in experiment.stages})


def _unchanged(run: RunFolder, stage: Stage) -> bool:
    entry = run.stage(stage.name)
    return entry["state"] != "done" or entry.get("inputs") == inputs_digest(stage)


def inputs_digest(stage: Stage) -> str:
    """sha256 over the files from outside the run that a stage's settings name (`path` or `kind:path`), by size and
    time; a folder counts with its direct children.
    """
    seen = hashlib.sha256()
    for path, leaf in stage.settings:
        for value in (v for v in _texts(leaf.value) if "${" not in v):
            for text in (value, value.partition(":")[2]):
                if text and ("/" in text or "." in text) and os.path.exists(text):
                    for line in _looks(text):
                        seen.update(f"{path}{line}".encode())
    return seen.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep in lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _looks(path: str) -> Iterator[str]:
    """Name, size and time of a file, and of a folder's direct children."""
    for one in [path, *(sorted(os.path.join(path, n) for n in os.listdir(path)) if os.path.isdir(path) else [])]:
        with contextlib.suppress(OSError):  # another process may delete it between listing and asking
            stat = os.lstat(one) if one != path else os.stat(one)
            yield f"{one}{stat.st_size}{stat.st_mtime_ns}"


def code_digest() -> str:
    """sha256 over the Python files of the package, of the plug-ins and of the packages that the user allows: tells
    whether a run goes on with the code that began it.
    """
    seen = hashlib.sha256()
    rooms = [sorted((ROOT / room).rglob("*.py")) for room in ("kernels", "datamodules", "lightning_modules", "launch")]
    users = [package_files(name) for name in sorted({*user_packages()} - {*ALLOWED_PACKAGES})]
    for file in dict.fromkeys(f for files in [*rooms, plugin_files(), *users] for f in files):
        seen.update(file.read_bytes())
    return seen.hexdigest()
