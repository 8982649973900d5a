"""What Lightning's trainer needs inside a worker of Ray Train: the strategy's counterpart, Ray's ranks. Imports Ray."""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train.lightning import RayLightningEnvironment

from ..sharded_strategy import FullyShardedStrategy
from ..strategies import make


class RayFullyShardedStrategy(FullyShardedStrategy):
    """`fsdp2` with the device and the number of processes that Ray gives; Ray has none of its own."""

    @property
    def root_device(self) -> torch.device:
        """The worker's device."""
        found: torch.device = ray.train.torch.get_device()
        return found

    def num_members(self) -> int:
        """Workers of the fit."""
        return self.world_size


def place_in_worker(trainer: dict[str, Any]) -> None:
    """Change the trainer's arguments for a worker, which holds one process of as many as there are workers."""
    several = ray.train.get_context().get_world_size() > 1
    trainer["strategy"] = make(trainer.get("strategy") if several else "ddp", on_ray=True)
    trainer["plugins"] = [*(trainer.get("plugins") or []), RayLightningEnvironment()]
    trainer["devices"], trainer["num_nodes"] = "auto", 1
