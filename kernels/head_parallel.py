"""Attention over several GPUs by heads (DeepSpeed-Ulysses, arXiv 2309.14509): each holds a part of the tokens, computes
some heads over all of them, and gives every other its tokens' part of the output.

Heads whose masks keep different numbers of blocks cost differently, so they are placed by cost. Forward only.

Axis legend: B batch, H head, h the rank's own heads, N token, n the rank's own tokens, D channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Placement = tuple[tuple[int, ...], ...]


def place_evenly(num_heads: int, num_ranks: int) -> Placement:
    """Runs of neighbouring heads, as many on each rank as can be.

    Raises:
        ValueError: if there are fewer heads than ranks.
    """
    _check(num_heads, num_ranks)
    bounds = [num_heads * rank // num_ranks for rank in range(num_ranks + 1)]
    return tuple(tuple(range(low, high)) for low, high in pairwise(bounds))


def place_by_cost(cost_H: Sequence[float], num_ranks: int) -> Placement:
    """The costliest head left goes to the rank with least to do (Graham's longest processing time first, at most 4/3 of
    the best). Every rank gets a head.

    Args:
        cost_H: of each head, such as the number of blocks that it keeps.
        num_ranks: GPUs.

    Returns:
        Heads of each rank, ascending.

    Raises:
        ValueError: if there are fewer heads than ranks.
    """
    _check(len(cost_H), num_ranks)
    load = [0.0] * num_ranks
    placed: list[list[int]] = [[] for _ in range(num_ranks)]
    for head in sorted(range(len(cost_H)), key=lambda h: -cost_H[h]):
        rank = min(range(num_ranks), key=lambda r: (bool(placed[r]) and load[r], len(placed[r]), r))
        placed[rank].append(head)
        load[rank] += cost_H[head]
    return tuple(tuple(sorted(heads)) for heads in placed)


def imbalance(cost_H: Sequence[float], placement: Placement) -> float:
    """Cost of the rank with most to do over the mean; 1 is even."""
    loads = [sum(cost_H[head] for head in heads) for heads in placement]
    return max(loads) / (sum(loads) / len(loads)) if sum(loads) else 1.0


@dataclass(frozen=True)
class HeadExchange:
    """Brings tensors from the tokens of each rank to its heads, and back.

    Attributes:
        placement: heads of each rank of the group; every head once.
        sizes: tokens of each rank, in their order.
        group: process group of torch.distributed; None = all processes.
    """

    placement: Placement
    sizes: tuple[int, ...]
    group: Any = None

    def to_heads(self, x_BHnD: Tensor) -> Tensor:
        """Of all heads over the rank's tokens [B, H, n, D], the rank's heads over all tokens [B, h, N, D]."""
        rank = self._rank()
        batch, width, heads, own = len(x_BHnD), x_BHnD.shape[3], self.placement, self.sizes[rank]
        order = torch.tensor([h for of_rank in heads for h in of_rank], device=x_BHnD.device)
        sent = x_BHnD.transpose(0, 1)[order].contiguous()  # [H, B, n, D], the heads of one rank after the other's
        unit = batch * own * width
        send, take = [len(h) * unit for h in heads], [len(heads[rank]) * batch * n * width for n in self.sizes]
        parts = self._exchange(sent, send, take)
        shaped = [p.view(len(heads[rank]), batch, n, width) for p, n in zip(parts, self.sizes, strict=True)]
        return torch.cat(shaped, 2).transpose(0, 1)

    def to_tokens(self, x_BhND: Tensor) -> Tensor:
        """The way back: of the rank's heads over all tokens, all heads over the rank's tokens."""
        rank = self._rank()
        batch, width, heads, own = len(x_BhND), x_BhND.shape[3], self.placement, self.sizes[rank]
        by_head = x_BhND.transpose(0, 1)
        sent = torch.cat([part.reshape(-1) for part in by_head.split(list(self.sizes), 2)])
        send = [len(heads[rank]) * batch * n * width for n in self.sizes]
        take = [len(h) * batch * own * width for h in heads]
        parts = self._exchange(sent, send, take)
        made = torch.cat([p.view(len(h), batch, own, width) for p, h in zip(parts, heads, strict=True)])
        order = torch.tensor([h for of_rank in heads for h in of_rank], device=made.device)
        return made[order.argsort()].transpose(0, 1)

    def _rank(self) -> int:
        import torch.distributed as dist

        return dist.get_rank(self.group)

    def _exchange(self, sent: Tensor, send: list[int], take: list[int]) -> tuple[Tensor, ...]:
        import torch.distributed as dist

        taken = sent.new_empty(sum(take))
        dist.all_to_all_single(taken, sent.reshape(-1), take, send, group=self.group)
        return taken.split(take)


def _check(num_heads: int, num_ranks: int) -> None:
    if not 1 <= num_ranks <= num_heads:
        raise ValueError(f"{num_heads} heads over {num_ranks} ranks: every rank needs a head")
