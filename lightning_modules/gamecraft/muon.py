"""Muon for convolutions: momentum whose matrices are made orthogonal, beside AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SMALLEST_SIDE = 16
RMS = 0.2  # of an update's elements at rate 1, which is about AdamW's


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) on weights that are matrices, with convolutions as [out, in x window]; else AdamW.

    Updates have the root mean square that AdamW's have (arXiv 2502.16982, section 2.2), so one learning rate serves
    both. torch's own Muon takes two-dimensional weights alone, one after another.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        momentum: of the matrices, Nesterov's.
        betas, eps: AdamW's, for vectors and for matrices with a side below 16.
        num_iterations: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        num_iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": tuple(betas), "eps": eps, "num_iterations": num_iterations}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            matrices = [p for p in trained if p.ndim > 1 and min(len(p), p[0].numel()) >= SMALLEST_SIDE]
            chosen = {id(p) for p in matrices}
            rest = [p for p in trained if id(p) not in chosen]
            if matrices:
                self._orthogonal_step(matrices, group)
            if rest:
                self._adam_step(rest, group)
        return loss

    def _orthogonal_step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        held, gradients = [self.state[p]["momentum"] for p in weights], _gradients(weights)
        torch._foreach_lerp_(held, gradients, 1 - momentum)
        matrices = [u.flatten(1) for u in torch._foreach_lerp(gradients, held, momentum)]
        updates = orthogonal(matrices, group["num_iterations"])
        torch._foreach_mul_(updates, [-group["lr"] * RMS * max(u.shape) ** 0.5 for u in updates])
        torch._foreach_add_(weights, [u.view_as(p) for u, p in zip(updates, weights, strict=True)])

    def _adam_step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in weights:
            if not self.state[p]:
                self.state[p] |= {"mean": torch.zeros_like(p), "square": torch.zeros_like(p), "step": 0}
            self.state[p]["step"] += 1
        states, gradients = [self.state[p] for p in weights], _gradients(weights)
        means, squares = [s["mean"] for s in states], [s["square"] for s in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        steps = [s["step"] for s in states]
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, [(1 - second**t) ** 0.5 for t in steps])
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_addcdiv_(weights, means, scales, [-group["lr"] / (1 - first**t) for t in steps])


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in weights if p.grad is not None]


def orthogonal(matrices: list[Tensor], num_iterations: int) -> list[Tensor]:
    """The matrices [R, C] with all singular values near 1, in float32, by a Newton-Schulz iteration.

    Each step multiplies a matrix by a polynomial of its Gram matrix, so that the iteration can run on Gram matrices of
    the shorter side alone, padded to one size: one batched product for all, where launching products one by one takes
    longer than computing them.
    """
    a, b, c = NEWTON_SCHULZ
    wide = [m.float() if m.shape[0] <= m.shape[1] else m.float().mT for m in matrices]
    side = max(m.shape[0] for m in wide)
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for number, m in enumerate(wide):
        by_shape[m.shape].append(number)
    stacks = [torch.stack([wide[n] for n in numbers]) for numbers in by_shape.values()]
    # those of a shape lie side by side: slices, since indexing by a list would wait for the device at every step
    grams_NSS = wide[0].new_zeros(len(wide), side, side)
    for same_NRC, part_NSS in zip(stacks, grams_NSS.split([len(s) for s in stacks]), strict=True):
        rows = same_NRC.shape[1]
        torch.bmm(same_NRC, same_NRC.mT, out=part_NSS[:, :rows, :rows])
    norms_N11 = grams_NSS.diagonal(dim1=1, dim2=2).sum(1).sqrt().add(1e-7)[:, None, None]
    grams_NSS = grams_NSS / norms_N11.square()
    unit_SS = torch.eye(side, device=grams_NSS.device)
    product_NSS = unit_SS.expand_as(grams_NSS)
    for _ in range(num_iterations):
        gram = product_NSS @ product_NSS @ grams_NSS
        product_NSS = (a * unit_SS + b * gram + c * gram @ gram) @ product_NSS
    product_NSS = product_NSS / norms_N11
    made: list[Tensor] = list(wide)
    parts = product_NSS.split([len(s) for s in stacks])
    for numbers, same_NRC, part_NSS in zip(by_shape.values(), stacks, parts, strict=True):
        rows = same_NRC.shape[1]
        for n, update in zip(numbers, part_NSS[:, :rows, :rows] @ same_NRC, strict=True):
            made[n] = update if matrices[n].shape[0] <= matrices[n].shape[1] else update.mT
    return made
