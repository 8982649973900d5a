"""How far a fit is, in a small file: what `fulgurite runs` shows while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..records.progress import NAME, write_progress
from .progress import total_steps


class ProgressFile(Callback):
    """Writes the file every few seconds, from the first process alone.

    Args:
        folder: of the stage.
        every_s: seconds between two writes.
    """

    def __init__(self, folder: str | Path, every_s: float = 2.0) -> None:
        self.folder, self.every_s = Path(folder), every_s
        self._begun = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begun = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write if it is time."""
        now = time.monotonic()
        if now - self._last < self.every_s or not trainer.is_global_zero:
            return
        self._last = now
        speed = (trainer.global_step - self._first_step) / (now - self._begun)
        write_progress(self.folder, trainer.global_step, total_steps(trainer), speed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A fit that has ended is no longer under way."""
        if trainer.is_global_zero:
            (self.folder / NAME).unlink(missing_ok=True)
