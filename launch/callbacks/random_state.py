"""Random number generators travel with the checkpoint, so that a resumed run draws what the uninterrupted one drew."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def random_state() -> dict[str, Any]:
    """State of Python's, numpy's and torch's generators as tensors and plain numbers (loadable with weights_only)."""
    version, internal, gauss = random.getstate()
    words: Any = numpy.random.get_state()
    _, keys, position, has_gauss, cached = words
    return {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators where `random_state` found them; GPUs only as far as they exist here."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda.cpu(), device)


def of_each_process(trainer: Trainer, state: Any) -> list[Any]:
    """The states of all processes of a run in their order, in each of them."""
    states = [state] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(states, state)
    return states


class RandomState(Callback):
    """Saves the generators with each checkpoint (those of every process), and sets them again before the first batch
    after a restore.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the generators' states to the checkpoint, in the order of the processes."""
        checkpoint["random_state"] = of_each_process(trainer, random_state())

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state for when set-up, which draws numbers of its own, is over."""
        states = checkpoint.get("random_state", [])
        self._restored = states[trainer.global_rank] if trainer.global_rank < len(states) else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore: after the loaders' iterators were made, before the first batch is fetched."""
        if self._restored is not None:
            set_random_state(self._restored)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore once more where an epoch begins, should the model have drawn numbers in its `on_train_start`."""
        self.on_train_start(trainer, pl_module)
        self._restored = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Forget the restored state, in an epoch that was resumed in its middle."""
        self._restored = None
