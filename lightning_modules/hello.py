"""The teaching example: a small convolutional network learns handwritten digits in seconds, in one file.

A model and its data are a LightningModule and a LightningDataModule with a registered name each. Everything else
(experiments/hello.yaml, flags, run folder, resume, report) comes from the framework. docs/adding_a_paper.md explains.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from ..datamodules.draws import DrawLoader, Shuffled, whole
from ..registry import DATAMODULES, MODELS
from .planned import PLANNERS, Planned, total_batches
from .sharing import share_out


@DATAMODULES.register("digits")
class DigitsDataModule(LightningDataModule):
    """1,797 handwritten digits, 8x8 pixels (UCI optdigits, out of scikit-learn): 1,200 train, 200 val, 397 test.

    Args:
        batch_size: pictures per batch.
        num_batches: batches per training epoch.
        seed: seed of the training order.
    """

    def __init__(self, batch_size: int = 64, num_batches: int = 100, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.num_batches, self.seed = batch_size, num_batches, seed

    def setup(self, stage: str) -> None:
        """Load the pictures ([N, 1, 8, 8] float in 0..1) and labels ([N] int64); no download."""
        from sklearn.datasets import load_digits

        pictures, labels = load_digits(return_X_y=True)
        x = torch.as_tensor(pictures, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        y = torch.as_tensor(labels, dtype=torch.int64)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        self.train, self.val, self.test = (TensorDataset(x[i], y[i]) for i in order.split([1200, 200, len(y) - 1400]))

    def train_dataloader(self) -> DrawLoader:
        """Batches in an order that a resumed run takes up where it stopped."""
        return DrawLoader(Shuffled(self.train, self.seed), self.batch_size, self.num_batches)

    def val_dataloader(self) -> DataLoader:
        """The 200 validation digits."""
        return DataLoader(self.val, batch_size=200, sampler=whole(self.val))

    def test_dataloader(self) -> DataLoader:
        """The 397 test digits."""
        return DataLoader(self.test, batch_size=397, sampler=whole(self.test))


@MODELS.register("hello")
class HelloModule(LightningModule):
    """Two convolutions and a linear layer. Logs accuracy, and beside it that of always answering the commonest digit.

    Args:
        width: channels of the convolutions.
        optimizer: anything that makes an optimiser of parameters.
    """

    def __init__(self, width: int = 16, optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-3)) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(width * 16, 10),
        )  # fmt: skip
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def configure_model(self) -> None:
        """Under the strategy `fsdp2`, share the weights out over the processes."""
        share_out(self.net, self.device_mesh)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the validation digits."""
        self.log("val/accuracy", self.accuracy(self.net(batch[0]), batch[1]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the test digits, beside the constant answer's."""
        self.log("test/accuracy", self.accuracy(self.net(batch[0]), batch[1]))
        self.log("test/accuracy_constant", batch[1].bincount().max() / len(batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of the configuration."""
        return self.optimizer(self.parameters())


@PLANNERS.register("hello")
def plan_hello(model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]) -> Planned:
    """What a step of this does, for `fulgurite plan`."""
    module = HelloModule(model["width"])
    size = int(data["batch_size"])
    x, y = torch.randn(size, 1, 8, 8), torch.zeros(size, dtype=torch.int64)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(module.net(x), y)

    return Planned(module, loss, size, "pictures", 1, total_batches(data, trainer))
