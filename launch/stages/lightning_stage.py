"""One Lightning stage of a run: built, given our callbacks, started or taken up again."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ...datamodules.files import write_json
from ...registry import UserError
from ..callbacks import EpochMetrics, LineProgress, MetricsFile, OutOfTime, ProgressFile, RandomState, ResumePoint
from ..config.refusals import refusals
from ..config.settings import Settings
from ..lightning import Built, build
from ..place import Place
from .termination import EXIT_STATUS, is_stop

RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def default_callbacks(folder: Path, stop_at: float | None = None, place: Place | None = None) -> list[Any]:
    """The callbacks of every run, in their order: a step's metrics are written before the checkpoint that holds it."""
    resume_point = ResumePoint()
    resume_point.folder, resume_point.stop_at = folder / "checkpoints", stop_at
    resume_point.asked = place.asked if place else None
    log = [] if sys.stderr.isatty() else [LineProgress()]
    return [
        RandomState(),
        EpochMetrics(),
        MetricsFile(folder / "metrics.csv"),
        ProgressFile(folder),
        *log,
        resume_point,
    ]


def run_lightning_stage(
    verb: str,
    settings: Settings,
    folder: Path,
    stop_at: float | None,
    wandb: dict[str, Any] | None,
    place: Place | None = None,
) -> str:
    """Run one verb; returns the state it ended in, `done` or `stopped`. `place` is given where somebody else has
    started this process, and others beside it.

    Raises:
        UserError: if the checkpoint that the stage names does not exist.
    """
    logger: Any = False
    if wandb is not None:
        from ..wandb import wandb_logger

        logger = wandb_logger(folder, **wandb)
    before = {name: os.environ.get(name) for name in RANK_VARIABLES}
    exit_code = 0
    try:
        built = build(settings, folder, callbacks=default_callbacks(folder, stop_at, place), logger=logger, place=place)
        if place is not None:  # whoever started the processes tells all of them to stop, not Lightning one by one
            built.trainer._signal_connector.register_signal_handlers = _leave_signals  # type: ignore[method-assign]
        if logger and built.trainer.is_global_zero:
            from ..wandb import log_settings

            log_settings(logger.experiment, folder, settings.to_dict())
        with refusals(settings):
            _run(verb, built, _checkpoint(verb, settings, folder))
        results = getattr(built.model, "results", None)
        if callable(results) and built.trainer.is_global_zero:
            write_json(folder / "results.json", {"schema_version": 1, **results()})
        if logger and built.trainer.is_global_zero:
            from ..wandb import log_stage

            log_stage(logger.experiment, folder)
    except OutOfTime:
        return "stopped"
    except BaseException as error:
        exit_code = 0 if is_stop(error) else 1
        raise
    finally:
        if place is None or place.disbands:
            _disband(before)
        if wandb is not None:
            import wandb as client

            client.finish(exit_code=exit_code)
    return "done"


def _leave_signals() -> None:
    """In the place of Lightning's own handlers."""


def _disband(before: dict[str, str | None]) -> None:
    """Forget the group of processes that a fit made, so that the next stage can make its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _checkpoint(verb: str, settings: Settings, folder: Path) -> str | None:
    own = folder / "checkpoints" / "last.ckpt"
    if verb == "fit" and own.is_file():
        if not zipfile.is_zipfile(own):
            raise UserError(
                f"{own}: the checkpoint is damaged\n"
                "Delete it, and this stage begins afresh; or start a separate run with --new."
            )
        return str(own)
    named = settings.get("ckpt_path")
    if named is not None and not Path(named).is_file():
        raise UserError(f"{settings.origin('ckpt_path')}: no checkpoint at {named}")
    return str(named) if named else None


def _run(verb: str, built: Built, checkpoint: str | None) -> None:
    method = getattr(built.trainer, verb)
    extra = {"weights_only": True} if checkpoint else {}
    quiet = {"verbose": False} if verb in ("test", "validate") else {}
    try:
        method(built.model, datamodule=built.datamodule, ckpt_path=checkpoint, **extra, **quiet)
    except SIGTERMException:
        raise SystemExit(EXIT_STATUS) from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stop
        raise
