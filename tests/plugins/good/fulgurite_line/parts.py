"""A straight line learnt from points, and a command."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.registry import COMMANDS, DATAMODULES, MODELS


@MODELS.register("line")
class LineModule(LightningModule):
    """A straight line."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@DATAMODULES.register("points")
class PointsDataModule(LightningDataModule):
    """Points on a straight line."""

    def __init__(self, count: int = 64) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> DataLoader:
        x = torch.linspace(-1, 1, self.count)[:, None]
        return DataLoader(TensorDataset(x, 2 * x + 1), batch_size=8)


@COMMANDS.register("line greet")
def greet(name: str, times: int = 1) -> None:
    """Greet somebody.

    Args:
        name: whom.
        times: how often.
    """
    for _ in range(times):
        print(f"hello {name}")
