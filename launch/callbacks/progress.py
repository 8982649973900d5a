"""Progress for people who read a log file: one line every few seconds instead of a bar."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from ..stages.estimate import duration


class LineProgress(Callback):
    """Prints step, loss, speed and time left; first after a few steps (an early estimate), then every `every_s` s.

    Args:
        every_s: seconds between two lines.
    """

    def __init__(self, every_s: float = 20.0) -> None:
        self.every_s = every_s
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._begun = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begun = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print a line if it is time."""
        now, done = time.monotonic(), trainer.global_step - self._first_step
        if done == 0 or trainer.global_rank != 0 or (now - self._last < self.every_s and done != 5):
            return
        self._last = now
        total = total_steps(trainer)
        speed = done / (now - self._begun)
        left = f", {duration((total - trainer.global_step) / speed)} left" if total else ""
        loss = trainer.callback_metrics.get("train/loss")
        text = f"  step {trainer.global_step}{f'/{total}' if total else ''}, {speed:.2f} steps/s{left}"
        self._console.print(text + (f", train/loss {float(loss):.4g}" if loss is not None else ""))


def total_steps(trainer: Trainer) -> int | None:
    """Optimiser steps of the whole fit; None if it has no end."""
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None
