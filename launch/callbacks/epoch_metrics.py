"""Means over an epoch travel with a checkpoint taken in its middle; Lightning by itself would start them afresh."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from .random_state import of_each_process


class EpochMetrics(Callback):
    """Saves what has gathered so far in an epoch's training metrics: values logged with `on_epoch=True` (mean, sum,
    minimum, maximum), and the states of the module's torchmetrics that belong to training.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] = {}
        self._last: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the last values, and the gathered state if the checkpoint is taken within an epoch."""
        checkpoint["last_metrics"] = {k: v.detach().cpu() for k, v in trainer.callback_metrics.items()}
        if trainer.is_last_batch:
            return
        logged = {
            key: [item.value, getattr(item, "cumulated_batch_size", None)]
            for key, item in trainer.fit_loop.epoch_loop._results.items()
            if item.is_tensor and item.meta.on_epoch and not item.has_reset
        }
        states = {name: _state(metric) for name, metric in _training_metrics(trainer, pl_module).items()}
        checkpoint["epoch_metrics"] = of_each_process(trainer, {"logged": logged, "states": states})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state for when training starts."""
        self._last = checkpoint.get("last_metrics", {})
        saved = checkpoint.get("epoch_metrics", [])
        self._restored = dict(saved[trainer.global_rank]) if trainer.global_rank < len(saved) else {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the last values back."""
        trainer.callback_metrics.update(self._last)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Give the module's torchmetrics their state back."""
        if "states" not in self._restored:
            return
        modules = dict(pl_module.named_modules())
        for name, saved in self._restored.pop("states").items():
            metric = modules.get(name)
            if isinstance(metric, Metric):
                for key, value in saved["values"].items():
                    setattr(metric, key, _moved(value, metric))
                metric._update_count = saved["updates"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Join what was logged before to the first batch's values (Lightning knows their names only now)."""
        for key, (value, weight) in self._restored.pop("logged", {}).items():
            item = trainer.fit_loop.epoch_loop._results.get(key)
            if item is None:
                continue
            value = value.to(item.value.device)
            if item.meta.is_max_reduction or item.meta.is_min_reduction:
                item.value = item.meta.reduce_fx(item.value, value)
            else:
                item.value = value + item.value
            if weight is not None:
                item.cumulated_batch_size = item.cumulated_batch_size + weight.to(item.value.device)


def _training_metrics(trainer: Trainer, pl_module: LightningModule) -> dict[str, Metric]:
    """The module's torchmetrics that hold something, without those that the validation logs."""
    validation = {item.meta.metric_attribute for item in trainer.fit_loop.epoch_loop.val_loop._results.values()}
    found = {n: m for n, m in pl_module.named_modules() if isinstance(m, Metric) and m.update_count}
    return {n: m for n, m in found.items() if not validation & {n, n.partition(".")[0]}}


def _state(metric: Metric) -> dict[str, Any]:
    return {"values": {k: getattr(metric, k) for k in metric._defaults}, "updates": metric.update_count}


def _moved(value: Tensor | list[Tensor], metric: Metric) -> Tensor | list[Tensor]:
    return [v.to(metric.device) for v in value] if isinstance(value, list) else value.to(metric.device)
