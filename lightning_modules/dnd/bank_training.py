"""Training loops of the bank's generators: onto snapshots, and through the frozen model on the training tasks' labels.

Axis legend: B batch, N prompts, L text token, C channel, T weight token, H rank + 2, W chunk + 2, G tasks of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...datamodules.dnd.token_batches import product_error, untokenize_batch
from ...datamodules.dnd.token_rows import RowStream, pad_rows
from ...datamodules.files import atomic_write
from .bank_pairs import BankPairs
from .batched_lora import BatchedLoRA, Stack
from .bulk import TOLD_EVERY_S
from .losses import weighted_token_mse

Say = Callable[[int, float], None]


@dataclass(frozen=True)
class Steps:
    """Length and rates of one training.

    Attributes:
        steps: optimiser steps.
        batch_size: pairs of a step, or tasks of a step.
        lr: after a warm-up of 20 steps; a cosine to zero follows.
        weight_decay: of AdamW.
        save_every: steps between resume points.
    """

    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    save_every: int = 200

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        if step < 20:
            return self.lr * (step + 1) / 20
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - 20) / max(1, self.steps - 20)))


def onto_snapshots(
    network: nn.Module, pairs: BankPairs, steps: Steps, loss: str, resume_point: Path, say: Say, *, noise: float = 1e-4
) -> None:
    """Regress onto the bank's snapshots (arXiv 2506.16406, section 3), or onto their products B A.

    Args:
        network: makes tokens of conditions; a `RetrievalGenerator` is also told each pair's own task.
        pairs: the bank.
        steps: how long.
        loss: `tokens` (the published weighted MSE) or `product` (the error of B A, the token MSE at a tenth beside it,
            without which B and A have no scale of their own).
        resume_point: file for the state of an unfinished training.
        say: gets (step from 1, loss) now and then.
        noise: std of the noise on conditions; a tenth of it goes on the targets.
    """
    retrieves, tokenizer = hasattr(network, "lookup"), pairs.data.tokenizer
    assert tokenizer is not None

    def step_loss(step: int) -> Tensor:
        condition_BNLC, target_BTHW, task_B = pairs.draw(step, steps.batch_size)
        condition_BNLC = condition_BNLC + noise * torch.randn_like(condition_BNLC)
        noisy_BTHW = target_BTHW + 0.1 * noise * torch.randn_like(target_BTHW)
        with torch.autocast(pairs.device.type, torch.bfloat16, enabled=pairs.device.type == "cuda"):
            out_BTHW = network(condition_BNLC, task_B) if retrieves else network(condition_BNLC)
        plain = weighted_token_mse(out_BTHW, noisy_BTHW, pairs.token_weight_T)
        if loss == "tokens":
            return plain
        with torch.no_grad():
            wanted = untokenize_batch(tokenizer, target_BTHW)
        return product_error(untokenize_batch(tokenizer, out_BTHW), wanted) + 0.1 * plain

    _descend(network, step_loss, steps, resume_point, say)


def through_the_model(
    module: nn.Module, stack_of: Callable[[Tensor, Tensor], Stack], model: BatchedLoRA, pairs: BankPairs,
    streams: Sequence[RowStream], steps: Steps, resume_point: Path, say: Say,
) -> None:  # fmt: skip
    """Train whatever makes adapters of prompts by the frozen model's loss on the training tasks' labels.

    As Text-to-LoRA does (arXiv 2506.06105, its SFT training): the adapter of a prompt batch is judged by what the model
    then says, not by its distance to a snapshot.

    Args:
        module: what is trained.
        stack_of: (condition [G, N, L, C], task [G]) to G adapters, with gradients.
        model: base model.
        pairs: the training tasks' prompts.
        streams: their rows, in the order of `pairs.tasks`.
        steps: how long; `batch_size` is G.
        resume_point: file for the state of an unfinished training.
        say: gets (step from 1, loss) now and then.
    """

    def step_loss(step: int) -> Tensor:
        condition_GNLC, task_G = pairs.conditions(step, steps.batch_size)
        rows = [row for task in task_G.tolist() for row in streams[task].batch(step)]
        ids_BT, labels_BT = (x.to(model.device, non_blocking=True) for x in pad_rows(rows, model.pad))
        model.set(stack_of(condition_GNLC, task_G))
        return model.losses(ids_BT, labels_BT, len(task_G)).mean()

    _descend(module, step_loss, steps, resume_point, say)
    model.set(None)


@torch.no_grad()
def unseen_losses(network: nn.Module, pairs: BankPairs, draws: int = 2) -> dict[str, float]:
    """The published loss on prompts of the training tasks that training never saw, beside the best constant's.

    Args:
        network: makes tokens of conditions; a `RetrievalGenerator` may find each task's own adapter here.
        pairs: the bank.
        draws: prompt draws of each task.

    Returns:
        {"val/loss", "val/loss_constant"}: means over tasks and draws.
    """
    network.eval()
    constant_BTHW = pairs.means_KTHW.mean(0)[None]
    made: list[float] = []
    constant: list[float] = []
    for task in range(len(pairs.tasks)):
        for draw in range(draws):
            condition_NLC, target_THW = pairs.unseen(task, draw)
            for losses, tokens_BTHW in ((made, network(condition_NLC[None])), (constant, constant_BTHW)):
                losses.append(float(weighted_token_mse(tokens_BTHW, target_THW[None], pairs.token_weight_T)))
    return {"val/loss": sum(made) / len(made), "val/loss_constant": sum(constant) / len(constant)}


def _descend(module: nn.Module, step_loss: Callable[[int], Tensor], steps: Steps, file: Path, say: Say) -> None:
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=steps.lr, weight_decay=steps.weight_decay, foreach=True)
    start = _resume(file, module, optimizer) if file.is_file() else 0
    module.train()
    noted = time.monotonic()
    for step in range(start, steps.steps):
        for group in optimizer.param_groups:
            group["lr"] = steps.lr_at(step)
        loss = step_loss(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % steps.save_every == 0 and step + 1 < steps.steps:
            _save(file, module, optimizer, step + 1)
        if time.monotonic() - noted > TOLD_EVERY_S or step + 1 == steps.steps:
            noted = time.monotonic()
            say(step + 1, float(loss.detach()))
    module.eval()
    file.unlink(missing_ok=True)


def _save(file: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
    state = {"step": step, "weights": weights, "optimizer": optimizer.state_dict()}
    with atomic_write(file) as temporary:
        torch.save(state, temporary)


def _resume(file: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state: Mapping[str, object] = torch.load(file, weights_only=True, map_location="cpu")
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in state["weights"].items():  # type: ignore[attr-defined]
            own[name].copy_(value)
    optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
    return int(state["step"])  # type: ignore[call-overload]
