"""The checkpoint from which a cut-off run goes on, bit for bit."""

from __future__ import annotations

import time
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
    end for a batch followed by one, and happens at once otherwise.

    Args:
        folder: where `last.ckpt` lies.
        every_n_steps: how often to save, in optimiser steps. SIGTERM, the time limit and the end of training save too.
        stop_at: `time.time()` at which to save and stop, or None.

    Raises:
        OutOfTime: out of `fit`, at `stop_at`.
    """

    def __init__(self, folder: str | Path, every_n_steps: int = 50, stop_at: float | None = None) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.stop_at = stop_at
        self._saved_step = -1
        self._due = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Decide whether this step is due, and save if nothing that belongs to it is still to come."""
        step = trainer.global_step
        self._due = step != self._saved_step and (step % self.every_n_steps == 0 or self._stopping(trainer))
        loop = trainer.fit_loop.epoch_loop
        belongs = trainer.is_last_batch or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        if self._due and not belongs:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the validation of a due step, unless it closes an epoch."""
        if self._due and not trainer.sanity_checking and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the epoch's last batch, if it was due."""
        if self._due:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished state."""
        if trainer.global_step != self._saved_step:
            self._write(trainer)

    def _stopping(self, trainer: Trainer) -> bool:
        return bool(trainer.received_sigterm) or (self.stop_at is not None and time.time() >= self.stop_at)

    def _save(self, trainer: Trainer) -> None:
        self._write(trainer)
        if self.stop_at is not None and time.time() >= self.stop_at:
            raise OutOfTime

    def _write(self, trainer: Trainer) -> None:
        self._due = False
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.path)
