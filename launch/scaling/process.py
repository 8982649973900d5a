"""One process of a scaled training step: DDP or FSDP2 around what `fulgurite plan` counts, with AdamW."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...lightning_modules.planned import Planned
from .work import Work

WARM_UP, STEPS = 3, 10
LR = 1e-4


@dataclass(frozen=True)
class Measured:
    """A step on some GPUs.

    Attributes:
        ranks: GPUs.
        step_s: median seconds, of the slowest rank at each step.
        samples: of one rank's step.
        peak_gb: of the rank with most, in 1e9 bytes.
        losses: of every step, mean over ranks.
        parameters: that are trained.
    """

    ranks: int
    step_s: float
    samples: int
    peak_gb: float
    losses: tuple[float, ...]
    parameters: int


class _Step(nn.Module):
    """The loss as a forward pass, which DDP wraps."""

    def __init__(self, planned: Planned) -> None:
        super().__init__()
        self.network = planned.network
        self._loss = planned.loss

    def forward(self) -> Tensor:
        return self._loss()


def measure(work: Work, rank: int, ranks: int, device: torch.device, meeting: str) -> Measured:
    """Train for some steps; every rank has the same inputs, so that the losses are those of one.

    Args:
        work: the step.
        rank, ranks: this process, and how many.
        device: its GPU, or the CPU.
        meeting: where the processes meet, such as file:///tmp/meeting.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=ranks)
    try:
        return _train(work, ranks, device)
    finally:
        dist.destroy_process_group()


def _train(work: Work, ranks: int, device: torch.device) -> Measured:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    make = work.planner()
    with device:
        planned = make()
    network = planned.network.to(device).train()
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    step: nn.Module = _Step(planned)
    if work.sharded:
        _shard(planned, ranks, device)
    elif ranks > 1:
        ids = [device.index] if on_gpu else None
        step = nn.parallel.DistributedDataParallel(
            step, device_ids=ids, gradient_as_bucket_view=True, static_graph=True
        )
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, fused=on_gpu)
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times, losses = [], []
    for number in range(WARM_UP + STEPS):
        torch.manual_seed(number)
        dist.barrier()
        began = _now(device)
        with device, torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = step()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(_over_ranks(_now(device) - began, dist.ReduceOp.MAX, device))
        losses.append(_over_ranks(float(loss.detach()), dist.ReduceOp.SUM, device) / ranks)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0
    peak_gb = _over_ranks(peak, dist.ReduceOp.MAX, device)
    return Measured(ranks, statistics.median(times[WARM_UP:]), planned.samples, peak_gb, tuple(losses), parameters)


def _shard(planned: Planned, ranks: int, device: torch.device) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    from ...lightning_modules.gamecraft.sharding import checkpoint_activations, shard
    from ...lightning_modules.gamecraft.transformer import GameCraftTransformer

    network: Any = planned.network
    assert isinstance(network, GameCraftTransformer)
    if planned.blocks:
        checkpoint_activations(network)
    shard(network, init_device_mesh(device.type, (ranks,)), bf16=device.type == "cuda")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _over_ranks(value: float, how: Any, device: torch.device) -> float:
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, how)
    return float(shared)
