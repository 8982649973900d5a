"""Adapters mixed instead of generated: learned weights over the training tasks' LoRAs, and one LoRA that all share.

Axis legend: B batch, N prompts, L text token, C channel, E embedding, K training task, R LoRA rank, I width in,
O width out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .batched_lora import Stack
from .retrieval import NearestTasks, summaries

EMBEDDING = 64


class AdapterMixer(nn.Module):
    """B A = sum over tasks of w_k B_k A_k + B' A', as one adapter of rank (K + 1) R.

    The weights are a softmax of the cosine between the prompts' summary and each task's, plus a learned bilinear form
    that begins at zero, so that training begins at plain retrieval. It is trained through the frozen model on the
    training tasks' labels, each task without its own LoRA.

    Args:
        adapters: K training tasks' LoRAs.
        keys_KC: their prompts' summaries.
        shared: A' and B' to begin with, such as a multi-task LoRA's.
        nearest: tasks that may get weight.
    """

    def __init__(
        self, adapters: Sequence[Mapping[str, Tensor]], keys_KC: Tensor, shared: Mapping[str, Tensor], nearest: int
    ) -> None:
        super().__init__()
        num, channels = keys_KC.shape
        self.lookup = NearestTasks(num, channels, nearest)
        self.lookup.keys_KC.copy_(keys_KC)
        self.query = nn.Linear(channels, EMBEDDING, bias=False)
        self.key = nn.Parameter(torch.zeros(num, EMBEDDING))
        self.strength = nn.Parameter(torch.zeros(()))
        self._names = {key: key.replace(".", "/") for key in adapters[0]}  # a buffer's name may hold no dot
        for key, name in self._names.items():
            axis = 0 if ".lora_A." in key else 1  # all A one above the other, all B side by side
            self.register_buffer(name, torch.cat([a[key] for a in adapters], axis))
        self.shared = nn.ParameterDict({n: nn.Parameter(shared[k].clone()) for k, n in self._names.items()})

    def weights(self, condition_BNLC: Tensor, own_B: Tensor | None = None) -> Tensor:
        """[B, K], rows sum to `2 sigmoid(strength)`, 1 at the start."""
        plain_BK = self.lookup(condition_BNLC, own_B)
        centred_BC = summaries(condition_BNLC) - self.lookup.keys_KC.mean(0)
        learned_BK = self.query(nn.functional.normalize(centred_BC, dim=-1)) @ self.key.T
        mixed_BK = (plain_BK.clamp_min(1e-30).log() + learned_BK).masked_fill(plain_BK == 0, -torch.inf).softmax(1)
        return 2 * torch.sigmoid(self.strength) * mixed_BK

    def forward(self, condition_BNLC: Tensor, own_B: Tensor | None = None) -> Stack:
        """B adapters of rank (K + 1) R: A [B, (K + 1) R, I], B [B, O, (K + 1) R]."""
        weight_BK = self.weights(condition_BNLC, own_B)
        stack = {}
        for key, name in self._names.items():
            whole, shared = self.get_buffer(name), self.shared[name]
            if ".lora_A." in key:
                a_SI = torch.cat([whole, shared])
                stack[key] = a_SI.expand(len(weight_BK), *a_SI.shape)
            else:
                rank = shared.shape[1]
                b_BOS = whole * weight_BK.repeat_interleave(rank, 1)[:, None]
                stack[key] = torch.cat([b_BOS, shared.expand(len(weight_BK), *shared.shape)], 2)
        return stack
