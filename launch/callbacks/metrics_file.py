"""metrics.csv: one line per logged number, in the order of time, exact to the last bit, and right after a resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from ...datamodules.files import atomic_write
from ..metrics_csv import COLUMNS, read_metrics

class MetricsFile(Callback):
    """Writes what the module logs to a long-form CSV.

    It stands before the resume point in the callback list, so a step's line is on disk before a checkpoint that holds
    the step. After a restore, lines of later steps are cut: the run goes over those steps again.

    Args:
        file: path of the CSV.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._per_step: set[str] = set()

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the file, or cut it back to the step that was restored."""
        kept = [r for r in read_metrics(self.file) if r[0] <= trainer.global_step] if trainer.global_step else []
        self._rewrite(kept)

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write the step's metrics, every `log_every_n_steps`."""
        current = {k: v for k, v in trainer.callback_metrics.items() if not k.startswith(("val/", "test/"))}
        self._per_step |= set(current)
        if trainer.global_step % trainer.log_every_n_steps == 0 or trainer.is_last_batch:
            self._append(trainer, current)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was logged for the epoch as a whole."""
        new = {k: v for k, v in trainer.callback_metrics.items() if not k.startswith(("val/", "test/"))}
        self._append(trainer, {k: v for k, v in new.items() if k not in self._per_step})

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation's metrics."""
        if not trainer.sanity_checking:
            self._append(trainer, {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")})

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test's metrics, in place of an earlier test's."""
        self._rewrite([])
        self._append(trainer, dict(trainer.callback_metrics))

    def _rewrite(self, rows: list[tuple[int, int, str, float]]) -> None:
        with atomic_write(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([COLUMNS, *((s, e, m, repr(v)) for s, e, m, v in rows)])

    def _append(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if metrics:
            with self.file.open("a", newline="", encoding="utf-8") as out:
                rows = [(trainer.global_step, trainer.current_epoch, k, repr(float(v))) for k, v in metrics.items()]
                csv.writer(out).writerows(rows)

