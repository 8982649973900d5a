"""A model and a callback for the resume tests, named in their experiment files (FULGURITE_ALLOW_IMPORTS=noisy)."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import numpy
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from fulgurite.lightning_modules.hello import DigitsDataModule, HelloModule


class NoisyModule(HelloModule):
    """hello with all that a resume can get wrong: random numbers from three generators, a schedule, epoch metrics."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.save_hyperparameters()
        self.train_accuracy = MulticlassAccuracy(10, average="micro")
        self.by_hand = MeanMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        noise = torch.randn_like(batch[0]) * 0.1 + random.random() * 0.1 + float(numpy.random.rand()) * 0.1
        out = self.net(batch[0] + noise)
        loss = nn.functional.cross_entropy(out, batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.train_accuracy(out, batch[1])
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        self.by_hand.update(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/by_hand", self.by_hand.compute())
        self.by_hand.reset()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StillModule(HelloModule):
    """hello without dropout, whose draws depend on how many processes share a batch."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.net[5] = nn.Identity()


class LeakyModule(HelloModule):
    """Is given secrets, and may tell them all in an error."""

    def __init__(self, source: str, api_key: str, fails: bool = False) -> None:
        super().__init__(4)
        self.source, self.api_key, self.fails = source, api_key, fails

    def on_train_start(self) -> None:
        if self.fails:
            raise RuntimeError(f"can't reach {self.source} with {os.environ['HF_TOKEN']} and api_key={self.api_key}")


class PlateauModule(NoisyModule):
    """Its learning rate falls whenever a validation brings nothing new."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/accuracy"}}


class SometimesModule(NoisyModule):
    """Logs something in one step of an epoch alone, as a model does whose batches are of several kinds."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 1:
            self.log("train/sometimes", loss.detach() + self.current_epoch)
        return loss


class WorkerDigits(DigitsDataModule):
    """The digits, loaded by worker processes."""

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return type(loader)(loader.dataset, loader.batch_size, len(loader), num_workers=2)


class Trap(Callback):
    """Springs where the environment variable TRAP says, `hook:step:what`; what is a signal, or `error`. Notes each
    process's batches in files of the folder NOTE_BATCHES."""

    def _spring(self, hook: str, trainer: Trainer) -> None:
        place, _, rest = os.environ.get("TRAP", "").partition(":")
        step, _, what = rest.partition(":")
        if place == hook and trainer.global_step == int(step):
            if what == "error":
                raise RuntimeError("sprung")
            os.kill(os.getpid(), getattr(signal, what))

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self._spring("train_epoch_start", trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: tuple[Tensor, Tensor], *_: Any) -> None:
        if folder := os.environ.get("NOTE_BATCHES"):
            with open(f"{folder}/rank{trainer.global_rank}.txt", "a", encoding="utf-8") as file:
                print(trainer.global_step, batch[0].sum().item(), *batch[1].tolist(), file=file)
        self._spring("train_batch_start", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._spring("train_batch_end", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._spring("train_epoch_end", trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._spring("validation_batch_end", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._spring("validation_end", trainer)

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self._spring("save_checkpoint", trainer)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._spring("test_batch_end", trainer)
