"""The checkpoint from which a cut-off run goes on, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class OutOfTime(Exception):
    """The run's `--max-time` is over; its state is saved."""


class ResumePoint(Checkpoint):
    """Keeps `last.ckpt` up to date at moments from which Lightning resumes without losing or repeating anything.

    A checkpoint taken between a batch and the validation (or epoch end) that belongs to it would make the resumed run
    skip that validation. So the save waits: until the epoch's end for the epoch's last batch, until the validation's
    end for a batch followed by one, and happens at once otherwise; never while gradients are being accumulated. Where
    a ReduceLROnPlateau acts after those, it waits for the next batch that neither follows.

    Every run has one. To save more or less often, name it in the experiment:

        trainer: {callbacks: [{class_path: fulgurite.launch.callbacks.ResumePoint, init_args: {every_n_steps: 500}}]}

    Lightning's ModelCheckpoint may stand beside it, to keep the best by a metric (`monitor`, `mode`, `save_top_k`).

    Args:
        every_n_steps: how often to save, in optimiser steps. SIGTERM, the time limit and the end of training save too.

    Attributes:
        folder: where `last.ckpt` lies; the stage runner sets it (`checkpoints` in the stage's folder).
        stop_at: `time.time()` at which to save and stop, or None; set by the stage runner (`--max-time`).
        asked: tells whether somebody outside wants the fit to save and stop, or None; set where a cluster runs it.

    Raises:
        OutOfTime: out of `fit`, at `stop_at`, or when it was asked for.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is at least 1, not {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.folder: Path | None = None
        self.stop_at: float | None = None
        self.asked: Callable[[], bool] | None = None
        self._saved_step = -1
        self._due = self._late = self._out_of_time = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the trainer's own folder, outside a run."""
        self.folder = self.folder or Path(trainer.default_root_dir) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A restored state needs no second save; and the loaders' positions, which Lightning leaves out when the
        checkpoint was taken at an epoch's end, are restored too.
        """
        self._saved_step = trainer.global_step
        loop = trainer.fit_loop
        positions = loop._combined_loader_states_to_load
        if positions and loop._combined_loader is not None and loop._data_fetcher is not None:
            loop._combined_loader._load_state_dicts(positions)
            loop._combined_loader_states_to_load = []
            iter(loop._data_fetcher)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Decide whether this step is due, and save if nothing that belongs to it is still to come."""
        step, loop = trainer.global_step, trainer.fit_loop.epoch_loop
        # within a resumed epoch Lightning would leave out what its end does to a ReduceLROnPlateau
        trainer.fit_loop._restarting = False
        stopping = self._stopping(trainer)
        if loop._should_accumulate():
            return
        self._due = step != self._saved_step and (self._late or step % self.every_n_steps == 0 or stopping)
        fetcher = trainer.fit_loop._data_fetcher
        belongs = trainer.is_last_batch or (fetcher is not None and loop._should_check_val_fx(fetcher))
        if self._due and not belongs:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the validation of a due step, unless it closes an epoch."""
        if self._due and not trainer.sanity_checking and not trainer.is_last_batch:
            self._save_after(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the epoch's last batch, if it was due."""
        if self._due:
            self._save_after(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished state."""
        if trainer.global_step != self._saved_step:
            self._write(trainer)

    def _stopping(self, trainer: Trainer) -> bool:
        over = self.stop_at is not None and time.time() >= self.stop_at
        over = over or (self.asked is not None and self.asked())
        if trainer.world_size > 1 and (self.stop_at is not None or self.asked is not None):
            # the processes of one run must agree, or the one that saves would wait for the others for ever
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        self._out_of_time = self._out_of_time or over
        return self._out_of_time or (trainer.received_sigterm and trainer.world_size == 1)

    def _save_after(self, trainer: Trainer) -> None:
        self._late = any(c.reduce_on_plateau for c in trainer.lr_scheduler_configs)
        if not self._late:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._write(trainer)
        if self._out_of_time:
            raise OutOfTime

    def _write(self, trainer: Trainer) -> None:
        assert self.folder is not None
        self._due = self._late = False
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
