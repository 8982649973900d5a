"""`fulgurite bench overhead`: what the framework costs per training step, against the same loop in bare Lightning."""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..datamodules.files import write_json
from ..registry import COMMANDS, UserError

STEPS_PER_EPOCH = 100
SAVE_EVERY = 50
LOG_EVERY = 10
SIDES = {
    "bare": "lightning.pytorch.Trainer, CSVLogger, ModelCheckpoint every 50 steps, the same modules made by hand",
    "fulgurite": "the trainer of `fulgurite run`: metrics.csv, a resume point every 50 steps, progress lines",
}


@COMMANDS.register("bench overhead")
def overhead(pairs: int = 5, steps: int = 1000, width: int = 16, json: Path | None = None) -> int:
    """Steps per second of `fit` through fulgurite, and with bare lightning.pytorch, in turn in one process.

    Both sides train the model and data of `hello` (batches of 64, a validation every 100 steps), log the loss every 10
    steps to a CSV, save a whole checkpoint every 50 steps, and show no bar. The clock runs around `trainer.fit` alone:
    building either side is left out. One pair warms up and is not counted. Torch computes with one thread on both
    sides: two threads gain nothing at this size, and wait for each other where the machine is busy. The second ratio
    is of processor time, which the work of other programs on the machine disturbs less.

    Args:
        pairs: counted pairs; which side goes first changes from pair to pair.
        steps: optimiser steps of a fit, a multiple of 100.
        width: channels of the model's convolutions.
        json: file for the numbers.

    Raises:
        UserError: if `steps` is no multiple of 100, or `pairs` is below 1.
    """
    if steps < STEPS_PER_EPOCH or steps % STEPS_PER_EPOCH or pairs < 1:
        raise UserError(f"--steps {steps} --pairs {pairs}: steps is a multiple of {STEPS_PER_EPOCH}, pairs at least 1")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measure = {"bare": _bare, "fulgurite": _ours}
    wall_s: dict[str, list[float]] = {side: [] for side in measure}
    cpu_s: dict[str, list[float]] = {side: [] for side in measure}
    for pair in range(pairs + 1):
        for side in sorted(measure, reverse=bool(pair % 2)):
            with tempfile.TemporaryDirectory() as folder, _quiet():
                wall, cpu = measure[side](Path(folder), steps, width)
            if pair:
                wall_s[side].append(wall)
                cpu_s[side].append(cpu)
    torch.set_num_threads(threads)
    speeds = {side: [steps / s for s in wall_s[side]] for side in measure}
    ratios = [bare / ours for bare, ours in zip(wall_s["bare"], wall_s["fulgurite"], strict=True)]
    cpu_ratios = [bare / ours for bare, ours in zip(cpu_s["bare"], cpu_s["fulgurite"], strict=True)]
    _show(speeds, ratios, cpu_ratios, steps)
    if json is not None:
        from .records.record import git_state, machine, versions

        content = {
            "schema_version": 1,
            "bench": "overhead",
            "steps": steps,
            "width": width,
            "sides": SIDES,
            "steps_per_s": speeds,
            "cpu_s": cpu_s,
            "ratios": ratios,
            "median_ratio": statistics.median(ratios),
            "median_cpu_ratio": statistics.median(cpu_ratios),
            "git": git_state(),
            "machine": machine(),
            "versions": versions(),
        }
        write_json(json, content)
    return 0


def _show(speeds: dict[str, list[float]], ratios: list[float], cpu_ratios: list[float], steps: int) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("pair", "bare, steps/s", "fulgurite, steps/s", "fulgurite / bare", "by processor time"):
        table.add_column(column, justify="right")
    columns = [speeds["bare"], speeds["fulgurite"], ratios, cpu_ratios]
    for pair, row in enumerate(zip(*columns, strict=True), start=1):
        table.add_row(str(pair), *_cells(row))
    table.add_row("median", *_cells([statistics.median(c) for c in columns]), style="bold")
    console.print(table)
    for side, text in SIDES.items():
        console.print(f"{side}: {text}")
    middle, lowest, highest = statistics.median(ratios), min(ratios), max(ratios)
    console.print(f"{steps} steps a fit; fulgurite / bare {middle:.3f} (lowest {lowest:.3f}, highest {highest:.3f})")


def _cells(row: Sequence[float]) -> list[str]:
    return [f"{row[0]:.1f}", f"{row[1]:.1f}", f"{row[2]:.3f}", f"{row[3]:.3f}"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither side's messages on the screen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _timed(fit: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    fit()
    return time.perf_counter() - wall, time.process_time() - cpu


def _bare(folder: Path, steps: int, width: int) -> tuple[float, float]:
    """Seconds (wall, processor) of a fit without fulgurite's launch room."""
    import warnings

    from lightning.pytorch import Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    from ..lightning_modules.hello import DigitsDataModule, HelloModule

    warnings.filterwarnings("ignore", message=".*(does not have many workers|treespec, LeafSpec).*")
    seed_everything(0, verbose=False)
    model, data = HelloModule(width), DigitsDataModule(num_batches=STEPS_PER_EPOCH)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=steps // STEPS_PER_EPOCH,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=[ModelCheckpoint(folder / "checkpoints", every_n_train_steps=SAVE_EVERY, save_top_k=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return _timed(lambda: trainer.fit(model, datamodule=data))


def _ours(folder: Path, steps: int, width: int) -> tuple[float, float]:
    """Seconds (wall, processor) of a fit with what `fulgurite run hello` builds; its progress lines are thrown away."""
    from .config.experiment import parse_flags, resolve
    from .lightning import build
    from .stages.lightning_stage import default_callbacks
    from .stages.placeholders import expand

    values = {
        "trainer.max_epochs": steps // STEPS_PER_EPOCH,
        "trainer.log_every_n_steps": LOG_EVERY,
        "data.num_batches": STEPS_PER_EPOCH,
        "model.width": width,
    }
    experiment = resolve("hello", parse_flags([f"--{key}={value}" for key, value in values.items()]))
    settings = expand(experiment.stages[0].settings, folder, experiment.seed)
    built = build(settings, folder / "fit", callbacks=default_callbacks(folder / "fit"))
    return _timed(lambda: built.trainer.fit(built.model, datamodule=built.datamodule))
