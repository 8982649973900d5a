"""Training the LoRAs of many tasks at once, each from the same initialisation, resumable in the middle of a group.

Axis legend: K adapter, B row, T text token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...datamodules.dnd.token_rows import RowStream, pad_rows
from ...datamodules.files import atomic_write
from .batched_lora import BatchedLoRA

CLIP = 1.0
TOLD_EVERY_S = 10


@dataclass(frozen=True)
class BulkSettings:
    """How each LoRA of a group is trained.

    Attributes:
        rank: LoRA rank r.
        steps: optimiser steps, those with snapshots included.
        num_snapshots: snapshots, one at each of the last steps.
        lr: learning rate after warm-up; constant.
        warmup_steps: steps of linear warm-up.
        snapshot_lr_factor: learning rate while taking snapshots, relative.
        init_seed: seed of the shared initialisation.
        save_every: steps between resume points.
    """

    rank: int = 8
    steps: int = 150
    num_snapshots: int = 10
    lr: float = 1e-3
    warmup_steps: int = 5
    snapshot_lr_factor: float = 0.2
    init_seed: int = 0
    save_every: int = 50

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        if step >= self.steps - self.num_snapshots:
            return self.lr * self.snapshot_lr_factor
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup_steps))


def train_together(
    model: BatchedLoRA,
    streams: Sequence[RowStream],
    settings: BulkSettings,
    resume_point: Path,
    on_snapshot: Callable[[int, int, dict[str, Tensor]], None],
    on_step: Callable[[int, list[float]], None] = lambda step, losses: None,
) -> None:
    """Train one LoRA a stream, all in the same forward and backward passes.

    Adam works entry by entry and gradients are clipped adapter by adapter (to a norm of 1), so each adapter is the one
    that training alone would make, up to rounding.

    Args:
        model: base model, which carries the adapters.
        streams: K tasks' rows.
        settings: of all of them.
        resume_point: file for the state of an unfinished group; taken up if it is there, removed at the end.
        on_snapshot: gets (adapter, step from 1, its state) for each snapshot.
        on_step: gets (step from 1, losses) now and then.
    """
    num = len(streams)
    initial = model.initial(settings.rank, settings.init_seed)
    stack = {k: v.to(model.device).expand(num, *v.shape).clone().requires_grad_() for k, v in initial.items()}
    optimizer = torch.optim.AdamW(list(stack.values()), lr=settings.lr, weight_decay=0.0, foreach=True)
    start = _resume(resume_point, stack, optimizer) if resume_point.is_file() else 0
    model.set(stack)
    noted = time.monotonic()
    for step in range(start, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr_at(step)
        rows = [row for stream in streams for row in stream.batch(step)]
        ids_BT, labels_BT = (x.to(model.device, non_blocking=True) for x in pad_rows(rows, model.pad))
        loss_K = model.losses(ids_BT, labels_BT, num)
        optimizer.zero_grad()
        loss_K.sum().backward()
        clip_each(list(stack.values()))
        optimizer.step()
        done = step + 1
        if done > settings.steps - settings.num_snapshots:
            for k in range(num):
                on_snapshot(k, done, {key: value.detach()[k] for key, value in stack.items()})
        if done % settings.save_every == 0 and done < settings.steps:
            _save(resume_point, stack, optimizer, done)
        if time.monotonic() - noted > TOLD_EVERY_S or done == settings.steps:
            noted = time.monotonic()
            on_step(done, loss_K.tolist())
    model.set(None)
    resume_point.unlink(missing_ok=True)


@torch.no_grad()
def clip_each(stacked: Sequence[Tensor]) -> None:
    """Scale each adapter's gradients to a norm of at most 1, as `clip_grad_norm_` does for one model.

    Args:
        stacked: tensors whose first axis is the adapter, with gradients.
    """
    norms = [parameter.grad.flatten(1).norm(dim=1) for parameter in stacked if parameter.grad is not None]
    scale_K = (CLIP / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp_max(1.0)
    for parameter in stacked:
        if parameter.grad is not None:
            parameter.grad.mul_(scale_K.view(-1, *[1] * (parameter.ndim - 1)))


def _save(file: Path, stack: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    kept: dict[str, Tensor] = {}
    for key, parameter in stack.items():
        state = optimizer.state[parameter]
        kept |= {key: parameter.detach(), f"{key}/first": state["exp_avg"], f"{key}/second": state["exp_avg_sq"]}
    with atomic_write(file) as temporary:
        save_file({k: v.cpu().contiguous() for k, v in kept.items()}, temporary, metadata={"step": str(step)})


def _resume(file: Path, stack: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        step = int(opened.metadata()["step"])
    kept = load_file(file, device=str(next(iter(stack.values())).device))
    with torch.no_grad():
        for key, parameter in stack.items():
            parameter.copy_(kept[key])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": kept[f"{key}/first"],
                "exp_avg_sq": kept[f"{key}/second"],
            }
    return step
