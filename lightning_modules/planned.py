"""What a training step does, told without weights or data: `fulgurite plan` counts on it.

A paper registers a planner under the name of its model. launch/plan calls it where tensors have shapes and no memory;
it builds the networks with random weights, and says in `assumptions` what the experiment's files do not settle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..registry import Registry

PLANNERS = Registry("planners")
"""By the registered name of a model: `(model, data, trainer, stages) -> Planned`, model and data with
their constructors' defaults filled in, and the settings of all stages of the experiment by name."""


@dataclass(frozen=True)
class Planned:
    """A step of training, or of a forward pass, on one device.

    Attributes:
        network: with every parameter that is trained, and any that stand still beside them.
        loss: one micro-batch's loss, with made-up inputs.
        samples: of a micro-batch.
        units: of what is counted along, such as `tokens`.
        units_per_sample: of those.
        steps: micro-batches of the whole stage on one device.
        frozen: further networks that lie on the device and are not trained.
        copies: copies of the trained weights in their own precision, such as a moving average.
        blocks: modules whose inputs alone are kept for the backward pass, where activations are checkpointed.
        trains: whether there is a backward pass and an optimiser.
        assumptions: what this rests on that no file says, in sentences.
    """

    network: nn.Module
    loss: Callable[[], Tensor]
    samples: int
    units: str
    units_per_sample: float
    steps: int
    frozen: tuple[nn.Module, ...] = ()
    copies: int = 0
    blocks: tuple[nn.Module, ...] = ()
    trains: bool = True
    assumptions: tuple[str, ...] = field(default=())


def total_batches(data: dict[str, Any], trainer: dict[str, Any]) -> int:
    """Micro-batches of a fit whose datamodule gives `num_batches` an epoch."""
    epochs, limit = int(trainer.get("max_epochs") or 1), int(trainer.get("max_steps") or -1)
    accumulated = int(trainer.get("accumulate_grad_batches") or 1)
    if epochs < 0 and limit > 0:
        return limit * accumulated
    batches = int(data["num_batches"]) * max(epochs, 1)
    return min(batches, limit * accumulated) if limit > 0 else batches
