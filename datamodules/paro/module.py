"""The DataModule of PARO: a layer at a time, with the captures of its queries and keys."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ...kernels.paro.calibration import Layer
from ...registry import DATAMODULES
from .captures import CaptureStore, Handle


class LayerCaptures:
    """One layer's captures; loaded one at a time, since one has the size of a layer's q and k.

    No dataclass: Lightning takes those apart to move what is in them.

    Attributes:
        layer: number of the layer.
        store: where they lie.
        handles: which they are.
    """

    def __init__(self, layer: int, store: CaptureStore, handles: tuple[Handle, ...]) -> None:
        self.layer, self.store, self.handles = layer, store, handles

    def load(self, handle: Handle, device: torch.device) -> Layer:
        """One of them."""
        return self.store.load(handle, device)


@DATAMODULES.register("paro", paper="2506.16054")
class AttentionCaptureDataModule(LightningDataModule):
    """Captured queries and keys by layer: predict gives the films of the split `calibrate`, test those of `test`.

    Args:
        captures: folder that `fulgurite paro capture` wrote.
    """

    def __init__(self, captures: str) -> None:
        super().__init__()
        self.captures = captures

    @property
    def store(self) -> CaptureStore:
        """The folder.

        Raises:
            UserError: if it holds no captures.
        """
        return CaptureStore(self.captures)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Layers in their order, with the captures that plans are made from."""
        return DataLoader(_Layers(self.store, "calibrate"), batch_size=None)

    def test_dataloader(self) -> DataLoader[Any]:
        """Layers in their order, with the captures that plans are tested on."""
        return DataLoader(_Layers(self.store, "test"), batch_size=None)


class _Layers(Dataset[LayerCaptures]):
    def __init__(self, store: CaptureStore, split: str) -> None:
        self._store, self._split = store, split

    def __len__(self) -> int:
        return self._store.meta.num_layers

    def __getitem__(self, layer: int) -> LayerCaptures:
        return LayerCaptures(layer, self._store, tuple(self._store.select(layer, self._split)))
