"""Generators that do not begin at nothing: they add to the nearest tasks' adapters, or to one adapter of all tasks.

Axis legend: B batch, N prompts, L text token, C channel, T weight token, H rank + 2, W chunk + 2, K training task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .hyperconv import HyperConvGenerator


def summaries(condition_BNLC: Tensor) -> Tensor:
    """What a condition is found by: its states' mean [B, C], fp32."""
    return condition_BNLC.float().mean((1, 2))


class NearestTasks(nn.Module):
    """Weights over the training tasks, by the cosine of centred summaries: softmax over the nearest ones.

    Args:
        num_tasks: K.
        channels: C.
        nearest: tasks that get weight; the others get none.
        temperature: of the softmax; small is the nearest alone.
    """

    def __init__(self, num_tasks: int, channels: int, nearest: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.nearest, self.temperature = min(nearest, num_tasks - 1), temperature
        self.keys_KC: Tensor
        self.register_buffer("keys_KC", torch.zeros(num_tasks, channels))

    def forward(self, condition_BNLC: Tensor, own_B: Tensor | None = None) -> Tensor:
        """Weights [B, K]; a task's own place gets none where `own_B` [B] names it."""
        mean_C = self.keys_KC.mean(0)
        query_BC = nn.functional.normalize(summaries(condition_BNLC) - mean_C, dim=-1)
        score_BK = query_BC @ nn.functional.normalize(self.keys_KC - mean_C, dim=-1).T / self.temperature
        if own_B is not None:
            score_BK = score_BK.scatter(1, own_B[:, None], -torch.inf)
        lowest_B1 = score_BK.topk(self.nearest, dim=1).values[:, -1:]
        return score_BK.masked_fill(score_BK < lowest_B1, -torch.inf).softmax(1)


class RetrievalGenerator(nn.Module):
    """Tokens = weighted mean of the nearest training tasks' tokens + the cascade's output.

    While training, a pair's own task is left out of the mean: at use, the task is a new one too.

    Args:
        shapes: of the cascade.
        kernel_size: of the cascade.
        num_tasks: K.
        nearest: tasks in the mean.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], kernel_size: int, num_tasks: int, nearest: int) -> None:
        super().__init__()
        self.cascade = HyperConvGenerator(shapes, kernel_size)
        self.lookup = NearestTasks(num_tasks, shapes[0][2], nearest)
        self.memory_KTHW: Tensor
        self.register_buffer("memory_KTHW", torch.zeros(num_tasks, *shapes[-1]))

    def fill(self, keys_KC: Tensor, memory_KTHW: Tensor) -> None:
        """Take the training tasks' summaries and mean tokens."""
        self.lookup.keys_KC.copy_(keys_KC)
        self.memory_KTHW.copy_(memory_KTHW)

    def forward(self, condition_BNLC: Tensor, own_B: Tensor | None = None) -> Tensor:
        """[B, N, L, C] to [B, T, H, W], fp32."""
        with torch.autocast(condition_BNLC.device.type, enabled=False):  # scale codes do not survive bf16
            weight_BK = self.lookup(condition_BNLC, own_B)
            mean_BTHW = (weight_BK @ self.memory_KTHW.flatten(1)).view(-1, *self.memory_KTHW.shape[1:])
        out: Tensor = mean_BTHW + self.cascade(condition_BNLC)
        return out


class SharedGenerator(nn.Module):
    """Tokens = those of one adapter for all tasks, learned too, + gate x the cascade's output.

    A matrices that share their initialisation are mostly the same noise in every task. The cascade has to spend itself
    on that noise, since its own biases know no token's inside; here it does not. With a gate that begins at zero,
    training through the frozen model begins at the shared adapter, such as a multi-task LoRA.

    Args:
        shapes: of the cascade.
        kernel_size: of the cascade.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.cascade = HyperConvGenerator(shapes, kernel_size)
        self.shared_THW = nn.Parameter(torch.zeros(*shapes[-1]))
        self.gate = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def begin(self, shared_THW: Tensor, gate: float) -> None:
        """Take the shared adapter's tokens, and how much of the cascade counts at first."""
        self.shared_THW.copy_(shared_THW)
        self.gate.fill_(gate)

    def forward(self, condition_BNLC: Tensor) -> Tensor:
        """[B, N, L, C] to [B, T, H, W], fp32."""
        out: Tensor = self.shared_THW + self.gate * self.cascade(condition_BNLC)
        return out
