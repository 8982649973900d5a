"""RLlib's learner for GRPO: optimiser steps in micro-batches, the same for any number of learners.

Importing it needs ray.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, distributed

from .loss import grpo_loss
from .rl_module import ENTROPY, OLD, REFERENCE, WEIGHTS

FIRST = "first_"


class GRPOTorchLearner(TorchLearner):
    """A minibatch's loss is a sum over its tokens whose weights the algorithm has set for the whole minibatch, so that
    gradients of micro-batches and of learners add up to the same step, however it is cut.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """AdamW over the trainable parameters."""
        parameters = [p for p in self.module[module_id].parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """A new round of completions begins: its first minibatch has seen no update yet."""
        super().before_gradient_based_update(timesteps=timesteps)
        self._first = True

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """The loss of a minibatch or a part of one; its figures are kept in `figures`."""
        loss, self.figures = grpo_loss(
            fwd_out[Columns.ACTION_LOGP], batch[OLD], batch[REFERENCE], batch[Columns.ADVANTAGES], batch[WEIGHTS],
            fwd_out[ENTROPY], clip=config.clip, dual_clip=config.dual_clip, kl_coefficient=config.kl_coefficient,
        )  # fmt: skip
        return loss

    def _uncompiled_update(self, batch: dict[str, Any], **_: Any) -> tuple[Any, Any, Any]:
        """One optimiser step. Micro-batches go round RLlib's DDP wrapper, which would average over learners."""
        rows, config = batch[DEFAULT_MODULE_ID], self.config
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        size, total = config.micro_prompts * config.group_size, len(rows[Columns.OBS])
        parts: list[dict[str, Tensor]] = []
        for optimizer in self._optimizer_parameters:
            optimizer.zero_grad(set_to_none=True)
        module.train()
        for start in range(0, total, size):
            part = {name: value[start : start + size] for name, value in rows.items() if torch.is_tensor(value)}
            loss = self.compute_loss_for_module(
                module_id=DEFAULT_MODULE_ID, config=config, batch=part, fwd_out=module.forward_train(part)
            )
            loss.backward()
            parts.append({**self.figures, "loss": loss.detach()})
        figures = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        summed = torch.stack([v.max() if name == "ratio_gap" else v.sum() for name, v in figures.items()])
        if config.num_learners > 1:
            summed = self._over_all_learners(summed, list(figures).index("ratio_gap"))
        gradients = {ref: p.grad for ref, p in self._params.items() if p.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        values = dict(zip(figures, summed.tolist(), strict=True))
        self.metrics.log_dict(values, key=DEFAULT_MODULE_ID, window=1)
        if self._first:
            first = {FIRST + name: value for name, value in values.items()}
            self.metrics.log_dict(first, key=DEFAULT_MODULE_ID, window=1)
            self._first = False
        return {}, {DEFAULT_MODULE_ID: torch.tensor(values["loss"])}, {}

    def _over_all_learners(self, figures: Tensor, largest: int) -> Tensor:
        """Sum gradients and figures over the learners (the greatest of the figure at `largest`)."""
        for parameter in self._params.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in self._params.values()])
        distributed.all_reduce(flat)
        start = 0
        for parameter in self._params.values():
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()
        gap = figures[largest].clone()
        distributed.all_reduce(figures)
        distributed.all_reduce(gap, op=distributed.ReduceOp.MAX)
        figures[largest] = gap
        return figures
