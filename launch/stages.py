"""The stage runner: an experiment's stages in order, in one run folder, each once.

What happens to a stage, by the state found in run.json (the run's lock is held, so nobody else is at work):

    pending   never begun                 -> run it
    running   cut off by a crash or kill  -> run it again; a Lightning fit goes on from its last.ckpt
    stopped   out of time, or SIGTERM     -> the same
    failed    ended in an error           -> the same
    done      ended well                  -> skip it

A run folder belongs to one digest of resolved settings, so `done` is never stale; with other settings, or when an input
file has changed, another folder is taken (run_folder.choose), which takes over the leading stages that an earlier run
has finished in the same way. A list, not a workflow engine.
"""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from ..registry import UserError
from .experiment import Experiment, Stage
from .record import write_record
from .report import write_report
from .run_folder import RunFolder, choose, code_digest, inputs_digest, now
from .settings import Leaf, Settings
from .termination import Termination, is_stop

JOIN_VARIABLE = "FULGURITE_JOIN"
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class RunOptions:
    """How to run, apart from what: root of the run folders, afresh or not, time to spend, W&B, the command line."""

    root: Path = Path("runs")
    new: bool = False
    max_time_s: float | None = None
    wandb: dict[str, Any] | None = None
    command: str = ""


def run_experiment(experiment: Experiment, options: RunOptions) -> RunFolder:
    """Run what is still to run, then write record.json and report.md (also after a failure, with the error).

    Raises:
        UserError: a mistake to mend, in the settings, the inputs or the machine.
    """
    if JOIN_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        _join(experiment, options)
    run = choose(experiment, options.root, options.new)
    stop_at = time.time() + options.max_time_s if options.max_time_s else None
    told = run.finished and (run.path / "record.json").is_file()  # its record names the commit and command that made it
    with run.lock(), Termination() as termination:
        _announce(experiment, run)
        error: BaseException | None = None
        try:
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
            error = None if is_stop(caught) else caught
            raise
        finally:
            if not told:
                write_record(run, experiment, options.command, error)
                write_report(run.path)
    return run


def _run_stage(
    stage: Stage, experiment: Experiment, run: RunFolder, options: RunOptions, stop_at: float | None
) -> None:
    entry, begun = run.stage(stage.name), time.monotonic()
    again = entry["state"] in ("running", "stopped", "failed")
    console.rule(f"[bold]{stage.name}[/bold]{' (goes on)' if again else ''}", align="left")
    entry.update(state="running", attempts=entry["attempts"] + 1, started=now())
    entry.update(digest=stage.digest(), inputs=inputs_digest(stage))
    entry.pop("error", None)
    run.save()
    folder, seconds = run.path / stage.name, entry["seconds"]
    try:
        settings = expand(stage.settings, run.path, experiment.seed)
        if stage.verb == "command":
            _command(stage, settings, folder, options.wandb)
            state = "done"
        else:
            from .lightning_stage import run_lightning_stage

            os.environ[JOIN_VARIABLE] = f"{run.path.resolve()}::{stage.name}"
            state = run_lightning_stage(stage.verb, settings, folder, stop_at, options.wandb)
    except BaseException as error:
        entry["state"] = "stopped" if is_stop(error) else "failed"
        if entry["state"] == "failed":
            entry["error"] = str(error) if isinstance(error, UserError) else traceback.format_exc(limit=-8)
        raise
    else:
        entry["state"] = state
    finally:
        os.environ.pop(JOIN_VARIABLE, None)
        entry.update(seconds=seconds + time.monotonic() - begun, finished=now())
        run.save()


def _command(stage: Stage, settings: Settings, folder: Path, wandb: dict[str, Any] | None) -> None:
    from .command_line import call_command

    folder.mkdir(parents=True, exist_ok=True)
    call_command(stage.command or "", settings.to_dict())
    if wandb is not None:
        from .wandb import log_stage, open_run

        with open_run(folder, **wandb) as run:
            log_stage(run, folder)


def expand(settings: Settings, run_dir: Path, seed: int) -> Settings:
    """Settings with `${run_dir}` and `${seed}` put in, and W&B artifacts (`artifact:…`) downloaded; other `${…}` are
    left to the configuration's own interpolation.

    Raises:
        UserError: if an artifact can't be had.
    """

    def put(value: Any) -> Any:
        if isinstance(value, str):
            if value == "${seed}":
                return seed
            if value.startswith("artifact:"):
                from .wandb import local_path

                return str(local_path(value))
            return value.replace("${run_dir}", str(run_dir)).replace("${seed}", str(seed))
        if isinstance(value, list):
            return [put(v) for v in value]
        return {k: put(v) for k, v in value.items()} if isinstance(value, dict) else value

    found = Settings()
    found.leaves = {p: Leaf(put(leaf.value), leaf.origin, leaf.replaced) for p, leaf in settings.leaves.items()}
    return found


def _announce(experiment: Experiment, run: RunFolder) -> None:
    from .estimate import announce

    console.print(f"[bold]{experiment.name}[/bold] -> {run.path}")
    if run.state["code"] != code_digest():
        console.print(
            "[yellow]The code has changed since this run began; --new starts afresh with the code of now.[/yellow]"
        )
    announce(experiment, run, console)


def _join(experiment: Experiment, options: RunOptions) -> NoReturn:
    """A further rank of a multi-process fit, started by Lightning: only that stage, no lock, no record."""
    from .lightning_stage import run_lightning_stage

    path, _, name = os.environ[JOIN_VARIABLE].rpartition("::")
    stage = next(s for s in experiment.stages if s.name == name)
    stop_at = time.time() + options.max_time_s if options.max_time_s else None
    run_lightning_stage(
        stage.verb, expand(stage.settings, Path(path), experiment.seed), Path(path) / name, stop_at, None
    )
    raise SystemExit(0)
