"""`fulgurite run EXPERIMENT --on ray`: the stages of a run in workers of Ray Train, one after the other.

The run's own process keeps the folder, its lock and its record, as in a plain run; only what a stage computes happens
in the workers, which see the folder too. A fit takes as many workers as are asked for, any other stage one. When a
worker or its machine dies, the stage begins again in new workers, from its last resume point.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ...datamodules.files import atomic_write
from ...registry import UserError
from ..config.experiment import Experiment, Stage
from ..config.settings import Settings
from ..records.notes import add_note
from ..records.progress import read_progress
from ..rllib.session import QUIET, local_ray
from ..stages.estimate import duration
from ..stages.run_folder import code_digest
from ..stages.termination import EXIT_STATUS
from ..strategies import check, one_process

LOSSES = 5  # workers lost before a stage gives up; each time it goes on from its last resume point
EVERY_S = 20.0
GRACE_S = 120.0  # for the step at hand and its checkpoint
_PASSED = ("FULGURITE_", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY")
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class RayOptions:
    """How a run uses Ray.

    Args:
        num_workers: of a fit.
        resources: of each worker, such as {"CPU": 4, "GPU": 1}; empty shares out what a machine of its own has.
        address: of a cluster; None starts Ray on this machine for the time of the run.
    """

    num_workers: int = 1
    resources: dict[str, float] | None = None
    address: str | None = None


def check_experiment(experiment: Experiment, options: RayOptions) -> None:
    """Refuse what can't run on Ray Train, before anything starts.

    Raises:
        UserError: with the reason.
    """
    if options.num_workers < 1:
        raise UserError(f"--num-workers {options.num_workers}: at least one worker runs a stage")
    if (options.address or "").startswith("ray://"):
        raise UserError(
            f"--address {options.address}: Ray Train does not work through Ray's client\n"
            "Submit the command as a job, which runs inside the cluster:\n"
            f"ray job submit -- fulgurite run {experiment.name} --on ray --num-workers {options.num_workers}"
        )
    for stage in experiment.stages:
        if stage.verb != "command" and stage.settings.get("runner") != "rllib":
            check(stage, _num_workers(stage, options), on_ray=True)
            if options.address is None:
                _check_gpus(stage, _num_workers(stage, options))


def _check_gpus(stage: Stage, workers: int) -> None:
    """Refuse workers that would have to share a GPU of this machine, which NCCL can't do.

    Raises:
        UserError: with both numbers.
    """
    if stage.settings.get("trainer", "accelerator") not in ("gpu", "cuda") or workers == 1:
        return
    import torch

    if workers > torch.cuda.device_count():
        raise UserError(
            f"--num-workers {workers}: stage {stage.name} wants a GPU for each, and this machine has "
            f"{torch.cuda.device_count()}\nTake fewer workers, a cluster (--address), or trainer.accelerator cpu."
        )


def _num_workers(stage: Stage, options: RayOptions) -> int:
    return 1 if stage.verb == "command" or one_process(stage) else options.num_workers


@contextlib.contextmanager
def on_ray(options: RayOptions) -> Iterator[RayEngine]:
    """Ray for the time of a run: on this machine, or an existing cluster, which is left as it was.

    Raises:
        UserError: if Ray is not installed, or the cluster can't be reached.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--on ray needs Ray\npip install 'fulgurite[ray]'") from None
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if options.address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        own = options.resources or {}
        per_worker = own.get("CPU") or max(1, cores // options.num_workers)
        resources = {"CPU": per_worker, **_gpus(options.num_workers), **own}
        with local_ray(round(per_worker * options.num_workers) + 1, object_store_mb=200):
            yield RayEngine(replace(options, resources=resources))
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=options.address, runtime_env={"env_vars": _environment()}, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {options.address}: {str(error).splitlines()[0]}"[:300]) from None
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, before)
    try:
        yield RayEngine(options)
    finally:
        ray.shutdown()


def _environment() -> dict[str, str]:
    """What the workers' processes on a cluster take over from this one; never a key or a token."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}


def _gpus(num_workers: int) -> dict[str, float]:
    import torch

    count = torch.cuda.device_count()
    return {"GPU": float(count // num_workers) if count >= num_workers else count / num_workers} if count else {}


class RayEngine:
    """Runs stages in workers of Ray Train; Ray has been started.

    Args:
        options: of the run.
    """

    def __init__(self, options: RayOptions) -> None:
        self.options = options

    def run_stage(
        self, stage: Stage, settings: Settings, folder: Path, stop_at: float | None, wandb: dict[str, Any] | None
    ) -> str:
        """Run a stage; returns the state it ended in.

        Args:
            stage: any but RLlib's, which asks for its own workers.
            settings: the stage's, placeholders filled in.
            folder: of the stage.
            stop_at: `time.time()` at which to stop, or None.
            wandb: where to log to W&B, or None.

        Raises:
            UserError: a mistake that a worker has found.
            RuntimeError: an error in a worker, with its traceback; or too many workers were lost.
            KeyboardInterrupt: after Ctrl-C, once the step at hand is saved.
            SystemExit: likewise after SIGTERM.
        """
        from ray.train import WorkerGroupError

        from .ray_worker import STOP_FILE, WORD_FILE, Work

        folder.mkdir(parents=True, exist_ok=True)
        (folder / STOP_FILE).unlink(missing_ok=True)
        given, word = replace(stage, settings=settings), secrets.token_hex(8)
        order = Work(given, folder.resolve(), stop_at, wandb, os.getcwd(), code_digest(), word)
        count = _num_workers(stage, self.options)
        console.print(f"[dim]on Ray: {count} worker{'s' if count > 1 else ''}, each {self._told()}[/dim]")
        lost = 0
        with _written(folder / WORD_FILE, word), _Stop(folder / STOP_FILE) as stop:
            while True:
                try:
                    state = self._fit(order, count, stop)
                    break
                except WorkerGroupError as error:
                    _raise_mistake(error)
                    reason = _own_error(error)
                    lost += 1
                    if reason or lost > LOSSES:
                        raise RuntimeError(reason or f"{lost} times a worker was lost: {error}") from None
                    stop.leave_if_asked()
                    console.print(
                        "[yellow]a worker was lost; the stage goes on in new ones from its last save[/yellow]"
                    )
            if lost:
                add_note(
                    folder, f"{lost} time{'s' if lost > 1 else ''} a worker was lost; the stage went on in new ones."
                )
            if state == "stopped":
                stop.leave_if_asked()
            return state

    def _told(self) -> str:
        given = self.options.resources or {"CPU": 1}
        return ", ".join(f"{value:g} {name}" for name, value in given.items())

    def _fit(self, order: Any, count: int, stop: _Stop) -> str:
        """One attempt; the state that the first worker returned."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from .ray_worker import work

        given = self.options.resources
        kept = order.folder / ".ray"
        trainer = TorchTrainer(
            work,
            train_loop_config={"work": order},
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu=bool((given or {}).get("GPU")), resources_per_worker=given
            ),
            run_config=RunConfig(name="train", storage_path=str(kept), failure_config=FailureConfig(max_failures=0)),
        )
        try:
            return str(_in_thread(trainer, order.folder, stop))
        finally:
            shutil.rmtree(kept, ignore_errors=True)


@contextlib.contextmanager
def _written(file: Path, text: str) -> Iterator[None]:
    """While entered, the file holds the text."""
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _raise_mistake(error: Any) -> None:
    """Tell a user's mistake that a worker has found as if it had been found here.

    Raises:
        UserError: if there is one.
    """
    from .ray_worker import mistake_in

    for text in filter(None, (mistake_in(str(found)) for found in error.worker_failures.values())):
        raise UserError(text)


def _own_error(error: Any) -> str:
    """The first error that the program itself has raised in a worker; empty if workers died, and what others say of
    that.
    """
    from .ray_worker import PEER_LOST

    texts = [str(found) for found in error.worker_failures.values() if isinstance(found, RuntimeError)]
    return next((text for text in texts if "Traceback" in text and PEER_LOST not in text), "")


def _in_thread(trainer: Any, folder: Path, stop: _Stop) -> Any:
    """Let Ray train in a thread of its own, so that signals come to us; tell how far it is meanwhile."""
    found: list[Any] = []

    def fit() -> None:
        try:
            found.append(trainer.fit().return_value)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    told = time.monotonic()
    while thread.is_alive():
        thread.join(0.1)
        stop.leave_if_late()
        if time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            _tell(folder)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _tell(folder: Path) -> None:
    at = read_progress(folder)
    step, total, speed = at.get("step"), at.get("total"), at.get("steps_per_s")
    if step is None or not speed:
        return
    left = f", {duration((total - step) / speed)} left" if total else ""
    console.print(f"  step {step}{f' of {total}' if total else ''}, {speed:.3g} steps/s{left}")


class _Stop:
    """Ctrl-C and SIGTERM ask the workers, by a file, to save and stop; a second one leaves at once.

    Args:
        file: that the workers look for.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.number, self.begun = file, 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.file.unlink(missing_ok=True)

    def leave_if_late(self) -> None:
        """Leave without waiting for the workers any longer."""
        if self.number and time.monotonic() - self.begun > GRACE_S:
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Do now what the signal asked for.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number:
            raise SystemExit(EXIT_STATUS)

    def _note(self, number: int, frame: Any) -> None:
        if self.number:
            self.leave_if_asked()
        self.number, self.begun = number, time.monotonic()
        with contextlib.suppress(OSError):
            self.file.touch()
