"""`fulgurite sweep FILE`: over W&B where there is a key, else here: one after the other, or on Ray Tune.

Here, small trials run in this process one after the other; larger ones each in a process of its own; and several at
once (`--agents N`), a search that learns (bayes) and early termination run on Ray Tune. A sweep that was stopped or
killed goes on when the same command is given again: finished trials are left alone, unfinished runs are taken up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from ...datamodules.files import write_json
from ...registry import UserError
from ..config.experiment import Experiment, parse_flags, resolve
from ..config.settings import short_path
from .listed import check_trials, listed_trials
from .metrics import check_metric
from .outcome import best_of, print_outcome, write_outcome
from .sweep_file import Sweep, find_sweep, read_sweep
from .trial import ENDED, Place, Trial, new_trial, said, split_words, told
from .trial_process import TrialProcess, in_this_process

SCHEMA_VERSION = 1
TOY_MINUTES = 1.0
console = Console(stderr=True, highlight=False, soft_wrap=True)


def run_sweep(name: str, root: Path, new: bool, agents: int) -> int:
    """Run a sweep to its end, or go on with it.

    Args:
        name: the sweep file, or its name under experiments/sweeps/.
        root: of the run folders; the sweep's own folder lies in `<root>/sweeps/`.
        new: afresh, whatever has been run.
        agents: trials at once.

    Returns:
        Exit status: 0, or 1 if no trial ended well.

    Raises:
        UserError: for a mistake in the file, the metric or a trial's settings, all told before anything starts.
    """
    from ..wandb import has_key

    sweep = read_sweep(find_sweep(name))
    with _folder(sweep, root.resolve(), new) as place:
        trials = listed_trials(sweep) if sweep.method != "bayes" else []
        check_trials(place, trials or [new_trial({p.name: p.at(0.5) for p in sweep.parameters})])
        first = place.resolve(trials[0] if trials else new_trial({p.name: p.at(0.5) for p in sweep.parameters}))
        if sweep.metric is not None:
            check_metric(sweep.metric, first, root)
        if sweep.metric and sweep.metric.startswith("test/"):
            console.print(
                f"[yellow]{sweep.metric} is of the test set: what is chosen by it has no honest test number "
                "any more. A val/ metric chooses without that.[/yellow]"
            )
        if has_key() and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
            from .online import run_online

            return run_online(place, agents)
        if agents > 1 or sweep.method == "bayes" or sweep.early is not None:
            from .tune import run_on_tune

            engine = "on Ray Tune"
            _announce(place, trials, engine, agents)
            trials = run_on_tune(place, trials, agents)
        else:
            toy = _is_toy(first)
            _announce(place, trials, "in this process" if toy else "each in a process of its own", 1)
            trials = [_run_one(place, t, toy, f"{n} of {len(trials)}") for n, t in enumerate(trials, start=1)]
        return _finish(place, trials)


@contextlib.contextmanager
def _folder(sweep: Sweep, root: Path, new: bool) -> Iterator[Place]:
    """The sweep's folder, locked while entered: the newest of the same content, or another.

    Raises:
        UserError: if another process runs the sweep.
    """
    home, digest = root / "sweeps", _digest(sweep)[:8]
    stem = f"{sweep.name}-{digest}"
    earlier = sorted(home.glob(f"{stem}*"), key=lambda f: (len(f.name), f.name))
    fresh = new
    if earlier and not new:
        folder = earlier[-1]
        fresh = (folder / "fresh").is_file()
    else:
        folder = home / (stem if not earlier else f"{stem}-{len(earlier) + 1}")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another process is running this sweep\nWait for it, or start another with --new."
        ) from None
    try:
        if fresh:
            (folder / "fresh").touch()  # a sweep begun with --new takes no earlier runs, however often it goes on
        if not (folder / "sweep.yaml").is_file():
            shutil.copyfile(sweep.file, folder / "sweep.yaml")
            write_json(folder / "sweep.json", {"schema_version": SCHEMA_VERSION, "file": str(sweep.file)})
        yield Place(sweep, folder, root, fresh)
    finally:
        lock.release()


def _digest(sweep: Sweep) -> str:
    """What decides the trials: the sweep's file, and the experiment as it stands without their settings."""
    flags, files = split_words(sweep.fixed)
    experiment = resolve(sweep.experiment, parse_flags(flags), files)
    return hashlib.sha256(f"{sweep.digest()} {experiment.digest()}".encode()).hexdigest()


def _announce(place: Place, trials: Sequence[Trial], how: str, agents: int) -> None:
    sweep = place.sweep
    count = f"{len(trials)} trials" if trials else f"up to {sweep.run_cap} trials"
    ended = sum(t.state in ENDED for t in place.all())
    console.print(
        f"[bold]{sweep.name}[/bold]: {sweep.method} over {sweep.experiment}, {count}, {how} -> {place.folder}"
    )
    if agents > 1:
        console.print(f"[dim]{agents} at once[/dim]")
    if ended:
        console.print(f"[dim]{ended} have ended before; the rest goes on[/dim]")


def _is_toy(experiment: Experiment) -> bool:
    """Whether trials are small enough to share a process: a minute at most, one device, Lightning or commands."""
    estimate = experiment.meta.get("estimate") or {}
    return estimate.get("minutes", TOY_MINUTES + 1) <= TOY_MINUTES and all(
        s.settings.get("trainer", "devices") in (None, 1) and s.settings.get("runner") != "rllib"
        for s in experiment.stages
    )


def _run_one(place: Place, trial: Trial, toy: bool, number: str) -> Trial:
    trial = place.load(trial)
    if trial.state in ENDED:
        return trial
    console.rule(f"trial {number}: {said(trial)}", align="left")
    if toy:
        trial = in_this_process(place, trial)
    else:
        process = TrialProcess(place, trial, num_threads=os.cpu_count() or 1)
        console.print(f"[dim]what it prints: {short_path(process.log)}[/dim]")
        try:
            trial = process.end()
        finally:
            process.stop()
    console.print(told(place.sweep, trial))
    return trial


def _finish(place: Place, trials: Sequence[Trial]) -> int:
    files = write_outcome(place, trials)
    print_outcome(place, trials)
    best = best_of(place.sweep, trials)
    if best is not None:
        print(f"best: {place.sweep.metric} {best.value:.4g}, trial {best.id}")
        print(f"fulgurite run {short_path(place.folder / 'best.yaml')}")
    for file in files:
        print(short_path(file))
    failed = [t for t in trials if t.state == "failed"]
    if failed:
        print(f"{len(failed)} of {len(trials)} trials failed; the first: {failed[0].error}")
    return 0 if any(t.state != "failed" for t in trials) else 1
