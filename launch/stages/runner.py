"""The stage runner: an experiment's stages in order, in one run folder, each once.

What happens to a stage, by the state found in run.json (the run's lock is held, so nobody else is at work):

    pending   never begun                 -> run it
    running   cut off by a crash or kill  -> run it again; a fit goes on from its last checkpoint
    stopped   out of time, or SIGTERM     -> the same
    failed    ended in an error           -> the same
    done      ended well                  -> skip it

A run folder belongs to one digest of resolved settings, so `done` is never stale; with other settings, or when an input
file has changed, another folder is taken (run_folder.choose), which takes over the leading stages that an earlier run
has finished in the same way. A list, not a workflow engine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from ...registry import UserError
from ..config.experiment import Experiment, Stage
from ..config.settings import Settings
from ..records.notes import drop_notes, noting
from ..records.record import git_state, is_readable, read_record, read_resolved, write_record, write_resolved
from ..records.redaction import redact
from ..records.report import write_report
from ..strategies import check_experiment
from .group import GroupEngine, follow, of_launcher
from .placeholders import expand
from .ranks import JOIN_VARIABLE, is_further_rank, join
from .reuse import files_of, lost
from .run_folder import RunFolder, choose, code_digest, inputs_digest, now
from .termination import Termination, is_stop, stop_of
from .watching import here

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
console = Console(stderr=True, highlight=False, soft_wrap=True)


class Engine(Protocol):
    """Where stages run, if not in this process."""

    def run_stage(
        self, stage: Stage, settings: Settings, folder: Path, stop_at: float | None, wandb: dict[str, Any] | None
    ) -> str:
        """Run a stage; returns the state it ended in, `done` or `stopped`."""


@dataclass(frozen=True)
class RunOptions:
    """How to run, apart from what: root of the run folders, afresh or not, time to spend, W&B, the command line, and
    where (None: in this process).
    """

    root: Path = Path("runs")
    new: bool = False
    max_time_s: float | None = None
    wandb: dict[str, Any] | None = None
    command: str = ""
    engine: Engine | None = None


def run_experiment(experiment: Experiment, options: RunOptions) -> RunFolder:
    """Run what is still to run, then write record.json and report.md (also after a failure, with the error).

    Raises:
        UserError: a mistake to mend, in the settings, the inputs or the machine.
        SystemExit: in a further process of torchrun's or srun's, when the first one has ended.
    """
    if is_further_rank():
        return join(experiment, options.root, options.max_time_s)
    group = of_launcher()
    if group is None:
        if options.engine is None:
            check_experiment(experiment)
        return _run(experiment, options)
    if group.rank > 0:
        raise SystemExit(follow(group, experiment))
    engine, status = GroupEngine(group, experiment), 1
    try:
        run = _run(experiment, replace(options, engine=engine))
        status = 0
        return run
    except SystemExit as stop:
        status = int(stop.code or 0) if isinstance(stop.code, int | None) else 1
        raise
    finally:
        engine.end(status)


def _run(experiment: Experiment, options: RunOptions) -> RunFolder:
    stop_at = time.time() + options.max_time_s if options.max_time_s else None
    with choose(experiment, options.root, options.new) as run, Termination() as termination:
        # its record names the commit and command that made it; one that was killed before the last line has to write it
        told = run.finished and is_readable(read_record, run.path) and read_record(run.path)["status"] == "done"
        error: BaseException | None = None
        try:
            if not run.finished:
                run.state["process"] = here()
                run.save()
            if not told or not is_readable(read_resolved, run.path):
                write_resolved(run, experiment)
            if not told:
                write_record(run, experiment, options.command, None, running=True)
            elif options.wandb is not None:
                _tell_wandb(run, options.wandb)
            _announce(experiment, run)
            for stage in experiment.stages:
                if run.stage(stage.name)["state"] == "done":
                    source = run.stage(stage.name).get("reused_from")
                    console.print(f"[dim]{stage.name}: done before{f' in {source}' if source else ''}, skipped[/dim]")
                elif stop_at and time.time() >= stop_at:
                    console.print(f"out of time before stage {stage.name}; run the same command again to go on")
                    break
                else:
                    _run_stage(stage, experiment, run, options, stop_at)
                    termination.check()
                    if run.stage(stage.name)["state"] != "done":
                        break
        except BaseException as caught:
            error = stop_of(caught) or caught
            if error is not caught:
                raise error from None
            if isinstance(caught, OSError) and caught.errno in _FULL:
                raise UserError(f"{run.path}: the disk is full\nFree some space and run again: it goes on.") from caught
            raise
        finally:
            if not told:
                with _not_masking(error):
                    write_record(run, experiment, options.command, None if error and is_stop(error) else error)
                    write_report(run.path)
    return run


def _tell_wandb(run: RunFolder, options: dict[str, Any]) -> None:
    """A run that is finished has nothing more to log; but W&B's sweep waits for the metrics of its trial."""
    from ..wandb import in_sweep, log_finished

    if in_sweep():
        log_finished(run.path, read_record(run.path)["metrics"], options)
    else:
        console.print("this run is finished, so nothing is logged to W&B; --new runs it afresh")


@contextlib.contextmanager
def _not_masking(error: BaseException | None) -> Iterator[None]:
    """A disk that is full when the record is written must not hide the error that came first.

    Raises:
        UserError: if there was none.
    """
    try:
        yield
    except OSError as second:
        if error is None:
            raise UserError(
                f"the run's record can't be written: {second}\nFree some space and run again: it goes on."
            ) from None
        console.print(f"[yellow]and the run's record can't be written: {second}[/yellow]")


def _run_stage(
    stage: Stage, experiment: Experiment, run: RunFolder, options: RunOptions, stop_at: float | None
) -> None:
    entry, begun = run.stage(stage.name), time.monotonic()
    again = entry["state"] in ("running", "stopped", "failed")
    console.rule(f"[bold]{stage.name}[/bold]{' (goes on)' if again else ''}", align="left")
    entry.update(state="running", attempts=entry["attempts"] + 1, started=now())
    code = code_digest()
    goes_on = again and stage.verb == "fit" and _has_checkpoint(run.path / stage.name)
    if goes_on and entry.get("code", code) != code:
        code = "several"  # part of it ran with other code, so no other run takes it over
    entry.update(digest=stage.digest(experiment.seed), inputs=inputs_digest(stage), code=code, git=git_state())
    entry.pop("error", None)
    run.save()
    folder, seconds = run.path / stage.name, entry["seconds"]

    def end() -> None:
        entry.update(seconds=seconds + time.monotonic() - begun, finished=now())
        run.save()

    try:
        settings = expand(stage.settings, run.path, experiment.seed)
        if not goes_on:
            drop_notes(folder)
        with noting(folder):
            if settings.get("runner") == "rllib":
                from ..rllib.stage import run_rllib_stage

                state = run_rllib_stage(settings, folder, stop_at, options.wandb)
            elif options.engine is not None:
                state = options.engine.run_stage(stage, settings, folder, stop_at, options.wandb)
            elif stage.verb == "command":
                run_command(stage, settings, folder, options.wandb)
                state = "done"
            else:
                from .lightning_stage import run_lightning_stage

                os.environ[JOIN_VARIABLE] = f"{experiment.digest()}::{stage.name}::{run.path.resolve()}"
                state = run_lightning_stage(stage.verb, settings, folder, stop_at, options.wandb)
    except BaseException as error:
        entry["state"] = "stopped" if is_stop(error) else "failed"
        if entry["state"] == "failed":
            entry["error"] = redact(str(error) if isinstance(error, UserError) else traceback.format_exc(limit=-8))
        with contextlib.suppress(OSError):  # on a full disk the first error counts; the record's writer notes it
            end()
        raise
    else:
        entry.update(state=state, inputs=inputs_digest(stage))  # anew: it may have written into a folder that it names
        if state == "done":
            entry["files"] = files_of(folder)
        end()
    finally:
        os.environ.pop(JOIN_VARIABLE, None)


def _has_checkpoint(folder: Path) -> bool:
    """Whether a stage has something to go on from: Lightning's checkpoint, or RLlib's."""
    return any((folder / "checkpoints" / name).is_file() for name in ("last.ckpt", "last.json"))


def run_command(stage: Stage, settings: Settings, folder: Path, wandb: dict[str, Any] | None) -> None:
    """Call the registered command of a stage, in this process."""
    from ..command_line import call_command

    folder.mkdir(parents=True, exist_ok=True)
    if wandb is None:
        call_command(stage.command or "", settings.to_dict())
        return
    from ..wandb import log_settings, log_stage, open_run

    with open_run(folder, **wandb) as run:  # an error inside gives the W&B run the exit code 1
        log_settings(run, folder, settings.to_dict())
        call_command(stage.command or "", settings.to_dict())
        log_stage(run, folder)


def _announce(experiment: Experiment, run: RunFolder) -> None:
    from .estimate import announce

    console.print(f"[bold]{experiment.name}[/bold] -> {run.path}")
    if run.state["code"] != code_digest():
        console.print(
            "[yellow]The code has changed since this run began; --new starts afresh with the code of now.[/yellow]"
        )
    if run.finished and (gone := lost(run, experiment)):
        console.print(f"[yellow]This run is finished, but {gone}; --new runs it afresh.[/yellow]")
    announce(experiment, run, console)
