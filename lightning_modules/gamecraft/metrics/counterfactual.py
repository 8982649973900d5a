"""Twelve actions from one start: which of the twelve real answers does a generated chunk lie nearest to?

Axis legend: S start, A action (and real answer), B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class CounterfactualAccuracy(Metric):
    """Share of generated chunks that lie nearest to the real answer of their own action.

    A chunk that ignores its action is right one time in `num_actions`. An answer that ties with others counts as
    nearest by its share, so that a constant gets exactly chance, also where two real answers are the same picture.

    Args:
        num_actions: actions from each start.
    """

    higher_is_better = True
    full_state_update = False
    votes_AA: Tensor
    correct_S: list[Tensor]

    def __init__(self, num_actions: int = 12) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.add_state("votes_AA", torch.zeros(num_actions, num_actions, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("correct_S", [], dist_reduce_fx="cat")

    def update(self, distance_AA: Tensor) -> None:
        """Add one start.

        Args:
            distance_AA: [A, A], row: the action of the generated chunk, column: the action of the real answer.
        """
        d_AA = distance_AA.double()
        best_A1 = d_AA.min(1, keepdim=True).values
        nearest_AA = (d_AA <= best_A1 + 1e-9 * best_A1.abs().clamp_min(1e-12)).double()
        vote_AA = nearest_AA / nearest_AA.sum(1, keepdim=True)
        self.votes_AA += vote_AA
        self.correct_S.append(vote_AA.diagonal().mean().reshape(1))

    def compute(self) -> Tensor:
        """The accuracy, float64 scalar."""
        return self.per_start().mean()

    def per_start(self) -> Tensor:
        """Accuracy of each start, [S], for its spread."""
        kept = self.correct_S
        return torch.cat(list(kept)) if isinstance(kept, list) else kept

    def confusion(self) -> Tensor:
        """Rows of shares [A, A]: for each commanded action, how often each real answer was the nearest."""
        return self.votes_AA / self.votes_AA.sum(1, keepdim=True).clamp_min(1)


def squared_distances(a_AD: Tensor, b_AD: Tensor) -> Tensor:
    """Squared Euclidean distances [A, A] of every row of `a` to every row of `b`, in float32 or better."""
    a, b = a_AD.flatten(1).float(), b_AD.flatten(1).float()
    found = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return found.clamp_min(0)
