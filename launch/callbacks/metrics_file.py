"""metrics.csv: one line per logged number, in the order of time, exact to the last bit, and right after a resume."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console

from ...datamodules.files import atomic_write
from ..records.metrics_csv import COLUMNS, read_metrics
from ..records.notes import add_note, drop_notes
from .random_state import of_each_process


class MetricsFile(Checkpoint):
    """Writes what the module logs to a long-form CSV.

    It counts as a Checkpoint since Lightning calls those after the module's `on_train_epoch_end`, which may log. It
    stands before the resume point in the callback list, so a step's line is on disk before a checkpoint that holds the
    step. After a restore, lines of later steps are cut: the run goes over those steps again. A checkpoint holds the
    number of lines, so that a file that was deleted or cut short while the run lay still is noticed, and told once; and
    what the steps of its epoch have logged, since not every step logs everything, and Lightning forgets it.
    In a multi-process run the first process writes the mean over all of them, so that a loss is that of the whole batch
    and not of the first process's part.

    Args:
        file: path of the CSV.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._per_step: set[str] = set()
        self._num_rows = 0
        self._wanted_rows = self._restored_step = 0
        self._earlier: tuple[int, dict[str, float]] = (-1, {})  # epoch, and what its steps before a restore have logged

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the number of lines so far, and what the epoch's steps have logged last."""
        checkpoint["num_metrics_rows"] = self._num_rows
        logged = trainer.fit_loop.epoch_loop._results.metrics(True)["callback"]
        values = {k: float(v) for k, v in self._with_earlier(trainer, dict(logged)).items()}
        checkpoint["logged_in_epoch"] = {"epoch": trainer.current_epoch, "values": values}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the number of lines for when the fit starts, and what its epoch's steps have logged."""
        logged = checkpoint.get("logged_in_epoch", {"epoch": -1, "values": {}})
        self._earlier = logged["epoch"], logged["values"]
        self._wanted_rows, self._restored_step = checkpoint.get("num_metrics_rows", 0), checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if lines are gone; here, since a fit that had ended already has no `on_train_start`."""
        own = self.file.parent / "checkpoints" / "last.ckpt"
        if not trainer.ckpt_path or Path(trainer.ckpt_path).resolve() != own.resolve():  # another run's checkpoint
            return
        gone = self._wanted_rows - len([r for r in read_metrics(self.file) if r[0] <= self._restored_step])
        if gone <= 0 or not trainer.is_global_zero:
            return
        text = (
            f"{self.file.name} lacks {gone} of {self._wanted_rows} lines up to step {self._restored_step}: "
            "it was deleted or cut short while the run was interrupted. The curves lack them too."
        )
        if add_note(self.file.parent, text):
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]{self.file.parent}: {text}[/yellow]")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the file, or cut it back to the step that was restored."""
        kept = [r for r in read_metrics(self.file) if r[0] <= trainer.global_step] if trainer.global_step else []
        if not trainer.global_step and trainer.is_global_zero:
            drop_notes(self.file.parent)
        self._rewrite(trainer, kept)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write the step's metrics, every `log_every_n_steps`."""
        if trainer.fit_loop._should_accumulate():
            return
        if trainer.global_step % self._every(trainer) == 0 or trainer.is_last_batch:
            current = self._with_earlier(trainer, _current(trainer))
            self._per_step |= set(current)
            self._append(trainer, current)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was logged for the epoch as a whole."""
        self._append(trainer, {k: v for k, v in _current(trainer).items() if k not in self._per_step})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation's metrics."""
        if not trainer.sanity_checking:
            self._append(trainer, _current(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test's metrics, in place of an earlier test's."""
        self._rewrite(trainer, [])
        self._append(trainer, _current(trainer))

    def _with_earlier(self, trainer: Trainer, logged: dict[str, Any]) -> dict[str, Any]:
        """What the epoch's steps have logged last, those before a restore included."""
        epoch, values = self._earlier
        return {**values, **logged} if epoch == trainer.current_epoch else logged

    @staticmethod
    def _every(trainer: Trainer) -> int:
        return int(vars(trainer)["log_every_n_steps"])  # set by a part of the trainer that type checkers don't see

    def _rewrite(self, trainer: Trainer, rows: list[tuple[int, int, str, float]]) -> None:
        self._num_rows = len(rows)
        if trainer.is_global_zero:
            with atomic_write(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
                csv.writer(out).writerows([COLUMNS, *((s, e, m, repr(v)) for s, e, m, v in rows)])

    def _append(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        metrics = over_processes(trainer, metrics)
        self._num_rows += len(metrics)
        if metrics and trainer.is_global_zero:
            with self.file.open("a", newline="", encoding="utf-8") as out:
                rows = [(trainer.global_step, trainer.current_epoch, k, repr(float(v))) for k, v in metrics.items()]
                csv.writer(out).writerows(rows)


def over_processes(trainer: Trainer, metrics: dict[str, Any]) -> dict[str, float]:
    """Each metric's mean over the processes that have it; its largest or smallest value if it was logged so."""
    told = of_each_process(trainer, {k: float(v) for k, v in metrics.items()})
    if trainer.world_size == 1:
        return dict(told[0])
    joins: dict[str, Callable[[list[float]], float]] = {}
    for item in (trainer._results or {}).values():
        if item.is_tensor and (item.meta.is_max_reduction or item.meta.is_min_reduction):
            joins[item.meta.name] = max if item.meta.is_max_reduction else min
    names = dict.fromkeys(name for one in told for name in one)
    found = {name: [one[name] for one in told if name in one] for name in names}
    return {name: joins.get(name, statistics.fmean)(values) for name, values in found.items()}


def _current(trainer: Trainer) -> dict[str, Any]:
    """What was logged in the loop that runs now. (`trainer.callback_metrics` also holds values of loops long over,
    which a resumed run would not have.)
    """
    return dict(trainer._logger_connector.metrics["callback"])
