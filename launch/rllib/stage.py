"""One stage with `runner: rllib`: model and data built as Lightning's, trained by the model's algorithm."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningDataModule

from ...datamodules.files import write_json
from ...registry import UserError
from ..config.settings import Settings
from ..lightning import build
from ..records.progress import write_progress
from ..stages.termination import EXIT_STATUS
from .checkpoints import newest, save
from .metrics import IterationProgress, MetricsLog
from .session import apply_settings, ray_session
from .settings import RllibSettings


@runtime_checkable
class RllibModel(Protocol):
    """What a LightningModule needs for `runner: rllib`."""

    def rllib_config(self, data: LightningDataModule | None) -> Any:
        """The `AlgorithmConfig` of its training; processes and evaluation are set later."""

    def rllib_metrics(self, result: dict[str, Any]) -> dict[str, float]:
        """Numbers of an iteration's result for metrics.csv."""

    def rllib_end(self, algorithm: Any, folder: Path) -> dict[str, Any]:
        """Leave what was trained in the stage's folder; returns content of results.json."""


def run_rllib_stage(settings: Settings, folder: Path, stop_at: float | None, wandb: dict[str, Any] | None) -> str:
    """Train; go on from the stage's own checkpoint where there is one. Returns `done` or `stopped`.

    Raises:
        UserError: if the model does not know RLlib, or a checkpoint is damaged.
    """
    how = RllibSettings(**(settings.get("rllib") or {}))
    built = build(settings, folder)
    model = built.model
    if not isinstance(model, RllibModel):
        raise UserError(
            f"{settings.origin('runner')}: {type(model).__name__} can't be trained by RLlib\n"
            "Leave `runner: rllib` out: Lightning's trainer trains it."
        )
    config = model.rllib_config(built.datamodule)
    apply_settings(config, how)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ray_session(how))
        run: Any = None
        if wandb is not None:
            from ..wandb import log_settings, open_run

            run = stack.enter_context(open_run(folder, **wandb))
            log_settings(run, folder, settings.to_dict())
        algorithm = config.build_algo()
        stack.callback(algorithm.stop)
        log, ended = _train(algorithm, model, how, folder, stop_at, run)
        if not ended:
            return "stopped"
        found = model.rllib_end(algorithm, folder)
        table = {"title": "First and last iterations", "columns": ["metric", "mean of first 5", "mean of last 5"]}
        tables = [*found.pop("tables", []), {**table, "rows": log.course()}]
        write_json(folder / "results.json", {"schema_version": 1, **found, "tables": tables})
        if run is not None:
            from ..wandb import log_stage

            log_stage(run, folder)
    return "done"


def _train(
    algorithm: Any, model: RllibModel, how: RllibSettings, folder: Path, stop_at: float | None, run: Any
) -> tuple[MetricsLog, bool]:
    """Iterate to the end, until it is enough or the time is over; a stop by Ctrl-C or SIGTERM comes between two
    iterations. Returns the metrics, and whether training has ended.
    """
    checkpoints = folder / "checkpoints"
    found = newest(checkpoints)
    if found is not None:
        algorithm.restore_from_path(str(found.resolve()))
    log = MetricsLog(folder / "metrics.csv", int(algorithm.iteration))
    saved = first = int(algorithm.iteration)
    begun, ended = time.monotonic(), how.is_enough(log.last)
    with IterationProgress(saved, how.iterations) as progress, _Stops() as stops:
        while algorithm.iteration < how.iterations and not ended:
            values = model.rllib_metrics(algorithm.train())
            iteration = int(algorithm.iteration)
            log.append(iteration, values)
            progress.show(iteration, values)
            write_progress(folder, iteration, how.iterations, (iteration - first) / (time.monotonic() - begun))
            if run is not None:
                run.log(values, step=iteration)
            over = stops.asked or (stop_at is not None and time.time() >= stop_at)
            ended = how.is_enough(values)
            if over or ended or iteration % how.save_every == 0 or iteration == how.iterations:
                save(algorithm, checkpoints)
            if stops.asked:
                stops.leave()
            if over:
                break
    return log, ended or algorithm.iteration >= how.iterations


class _Stops:
    """Ctrl-C and SIGTERM are remembered while an iteration runs, so that it is finished and saved; a second one strikes
    at once.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stops:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self) -> None:
        """Do now what the signal asked for.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM.
        """
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_STATUS)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            self.leave()
        self.asked = number
