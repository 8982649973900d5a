"""`fulgurite plan EXPERIMENT`: parameters, memory, work and hours of each training stage on a named card.

    peak of a device = weights + optimiser + copies + what is gathered + the larger of gradients and what the backward
                       pass keeps (their sum where gradients accumulate)
    hours            = floating-point operations of a device / (the card's peak x utilisation)

Under ddp each device holds everything, and once more the gradients in the buckets that are sent. Under FSDP2 weights,
gradients, optimiser and copies are divided, and two blocks at a time are gathered in the precision of the arithmetic.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from ...lightning_modules.planned import PLANNERS, Planned
from ...registry import UserError, read_index
from ..config.experiment import Experiment, Stage
from .cards import Card
from .count import Counted, count

KEPT, GRADIENTS, CONTEXT = "kept for the backward pass", "gradients", "context"
OVERHEAD_GB = 1.0  # the CUDA context, cuBLAS and the allocator's rounding


@dataclass(frozen=True)
class StagePlan:
    """What one stage would take.

    Attributes:
        name: of the stage.
        planned: what a step is.
        counted: one micro-batch on one device.
        devices: how many.
        sharded: over how many of them weights lie in parts; 1 where each holds all.
        precision: Lightning's.
        memory: parts of a device's memory in bytes, by name.
        flops: of the whole stage on one device.
        peak: of the card in TFLOP/s at this precision.
        utilisation: share of that.
        accumulates: whether gradients stay over several micro-batches.
    """

    name: str
    planned: Planned
    counted: Counted
    devices: int
    sharded: int
    precision: str
    memory: dict[str, float]
    flops: float
    peak: float
    utilisation: float
    accumulates: bool

    @property
    def hours(self) -> float:
        """Hours of the stage."""
        return self.flops / (self.peak * 1e12 * self.utilisation) / 3600

    @property
    def step_seconds(self) -> float:
        """Seconds of one micro-batch."""
        return self.counted.step_flops / (self.peak * 1e12 * self.utilisation)

    @property
    def peak_bytes(self) -> float:
        """Of one device. Where gradients do not outlive a step, they grow while what was kept for them goes."""
        kept, gradients = (self.memory.get(name, 0.0) for name in (KEPT, GRADIENTS))
        rest = sum(self.memory.values()) - kept - gradients
        return rest + (kept + gradients if self.accumulates else max(kept, gradients))


def plan_stage(
    stage: Stage, experiment: Experiment, card: Card, utilisation: float, known: dict[Hashable, Counted] | None = None
) -> StagePlan | str:
    """Plan a stage; or say in a sentence why it can't be.

    Args:
        stage: of the experiment.
        experiment: whose other stages may say what this one gets.
        card: what it would run on.
        utilisation: share of the card's peak that the training reaches.
        known: counts of earlier stages, which a stage of the same step takes over; this one's is added.
    """
    trainer = stage.settings.get("trainer") or {}
    if stage.verb == "command":
        name, model, data = str(stage.command), stage.settings.to_dict(), {}
    elif stage.verb == "fit":
        dotted = str(stage.settings.get("model", "class_path"))
        name = next((n for n, entry in read_index().of("models").items() if entry.path == dotted), "")
        model, data = (stage_arguments(stage, part) for part in ("model", "data"))
    else:
        return f"{stage.verb}: not planned"
    if name not in read_index().of("planners"):
        what = f"command {name}" if stage.verb == "command" else f"a step of {dotted.rpartition('.')[2]}"
        return f"not planned: nobody has said what {what} does"
    others = {s.name: s.settings.to_dict() for s in experiment.stages}
    precision = str(trainer.get("precision") or ("bf16-true" if stage.verb == "command" else "32-true"))
    try:
        kind = (name, json.dumps(_without_rate(model.get("optimizer")), sort_keys=True, default=str))
        planned, counted = count(
            lambda: PLANNERS[name](model, data, trainer, others), _optimizer(model), precision, known, kind
        )
        devices, sharded = _devices(trainer)
    except UserError as error:
        return f"not planned: {str(error).splitlines()[0]}"
    peak = card.bf16 if precision.startswith(("bf16", "16")) else card.fp32
    flops = counted.step_flops * planned.steps
    accumulates = int(trainer.get("accumulate_grad_batches") or 1) > 1
    memory = _memory(planned, counted, devices, sharded, precision)
    return StagePlan(
        stage.name, planned, counted, devices, sharded, precision, memory, flops, peak, utilisation, accumulates
    )


def _memory(planned: Planned, counted: Counted, devices: int, sharded: int, precision: str) -> dict[str, float]:
    """Bytes of one device, by what holds them."""
    trained = counted.weight_bytes
    parts = {
        "weights": trained / sharded,
        "frozen weights": float(counted.frozen_bytes),
        GRADIENTS: trained / sharded,
        "optimiser": counted.state_bytes / sharded,
        "copies of the weights": planned.copies * trained / sharded,
        KEPT: float(counted.kept_bytes),
    }
    if sharded > 1:
        share = 0.5 if precision.startswith(("bf16", "16")) else 1.0
        parts["gathered blocks"] = 2 * counted.largest_block * share
    elif devices > 1:
        parts["buckets"] = float(trained)
    parts[CONTEXT] = OVERHEAD_GB * 1e9
    return {name: size for name, size in parts.items() if size}


def _devices(trainer: dict[str, Any]) -> tuple[int, int]:
    """Devices in all, and over how many of them weights are divided.

    Raises:
        UserError: for a number of devices that only the machine knows.
    """
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        devices = len(devices)
    if nodes < 1:
        raise UserError(f"trainer.num_nodes is {nodes}: at least 1")
    if not isinstance(devices, int) or devices < 1:
        raise UserError(f"trainer.devices is {devices!r}: a plan needs their number\nSet it: --trainer.devices 8")
    count = devices * nodes
    strategy = trainer.get("strategy")
    path = strategy.get("class_path", "") if isinstance(strategy, dict) else str(strategy or "")
    if path.endswith(("ModelParallelStrategy", "FullyShardedStrategy")):
        found = strategy.get("init_args", {}).get("data_parallel_size", count) if isinstance(strategy, dict) else count
        return count, found if isinstance(found, int) else count
    return count, count if path.startswith("fsdp") or path.endswith("FSDPStrategy") else 1


def stage_arguments(stage: Stage, part: str) -> dict[str, Any]:
    """Arguments of a stage's model or datamodule, with the constructor's defaults filled in."""
    path = str(stage.settings.get(part, "class_path"))
    cls = _load(path)
    defaults = {
        p.name: p.default
        for p in inspect.signature(cls).parameters.values()
        if p.default is not inspect.Parameter.empty
    }
    return {**defaults, **(stage.settings.get(part, "init_args") or {})}


def _optimizer(model: dict[str, Any]) -> Callable[[list[Any]], Any]:
    """The optimiser that a model's settings name, or its own; never the fused kind, which knows no empty tensors."""
    named = model.get("optimizer")
    if not isinstance(named, dict) or "class_path" not in named:  # arguments alone are the default's
        import torch

        return lambda p: torch.optim.AdamW(p, lr=1e-3)
    cls = _load(str(named["class_path"]))
    arguments = {k: v for k, v in (named.get("init_args") or {}).items() if k != "fused"}
    return lambda parameters: cls(parameters, **arguments)


def _without_rate(optimizer: Any) -> Any:
    """An optimiser's settings without its learning rate, which changes no count."""
    if not isinstance(optimizer, dict):
        return None
    arguments = {k: v for k, v in (optimizer.get("init_args") or {}).items() if k != "lr"}
    return {**optimizer, "init_args": arguments}


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
