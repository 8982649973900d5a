"""Phased consistency with guidance distillation, as pure functions (arXiv 2405.18407; arXiv 2506.17201, section 3.5).

The noise levels 0 = sigma_0 < ... < sigma_N = 1 are cut into M phases of N / M steps. Within a phase the student learns
to jump from any level straight to the phase's lower end b; M jumps then make a sample, and the levels they stand on are
the sampler's own (`flow.sigmas(M, shift)`). For n in 1..N, with both sides aiming at the same b(n):

    student  x_n + (b - sigma_n) u(x_n, sigma_n, w)
    teacher  y = x_n + (sigma_(n-1) - sigma_n) [(1 + w) v(x_n | caption, camera) - w v(x_n | neither)]
    target   y + (b - sigma_(n-1)) u_EMA(y, sigma_(n-1), w)         which is y itself where sigma_(n-1) = b

Deviations from the authors' code: the grid is ours, so that sigma_N is exactly 1 and sigma_0 exactly 0 (theirs starts
below 1 unless N divides 1000, and ends above 0); w = guidance scale - 1.

Axis legend: B batch, C channel, T latent frame, H height, W width; other shapes [B, ...] are as good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .flow import euler, guided, shift

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], sigma [B]) -> velocity [B, ...]


@dataclass(frozen=True)
class PhaseGrid:
    """The grid of noise levels and its phases.

    Args:
        num_levels: N, steps of the teacher between noise and data.
        num_phases: M, steps of the student; divides N.
        shift: the schedule's shift.

    Raises:
        ValueError: if M does not divide N.
    """

    num_levels: int
    num_phases: int
    shift: float

    def __post_init__(self) -> None:
        if self.num_phases < 1 or self.num_levels % self.num_phases:
            raise ValueError(f"num_levels ({self.num_levels}) must be a multiple of num_phases ({self.num_phases})")

    def sigma(self, n: Tensor) -> Tensor:
        """Level sigma_n of grid points n (int, 0..N), float32: exactly 0 at n = 0 and 1 at n = N."""
        return shift(n.double() / self.num_levels, self.shift).float()

    def boundary(self, n: Tensor) -> Tensor:
        """Grid point (int) at the lower end of the phase of n in 1..N; a phase holds its upper end, not its lower."""
        width = self.num_levels // self.num_phases
        return (n - 1) // width * width

    def draw(self, batch_size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Draw n uniformly from 1..N, and give (sigma_n, sigma_(n-1), sigma_b), each [B] float32."""
        n = torch.randint(1, self.num_levels + 1, (batch_size,), device=device)
        return self.sigma(n), self.sigma(n - 1), self.sigma(self.boundary(n))


def guided_step(
    conditional: Tensor, unconditional: Tensor, w_B: Tensor, x: Tensor, sigma_B: Tensor, lower_B: Tensor
) -> Tensor:
    """One Euler step of the guided teacher, from its two velocities."""
    return euler(x, guided(conditional, unconditional, w_B), sigma_B, lower_B)


def consistency_pair(
    student: Velocity,
    student_ema: Velocity,
    x: Tensor,
    stepped: Tensor,
    levels: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Where the student's jump leads, and where it should: both at the lower end of x's phase.

    Args:
        student: velocity of the network in training.
        student_ema: velocity of its moving average.
        x: noisy samples at sigma_n.
        stepped: the teacher's step from there, at sigma_(n-1) (`guided_step`).
        levels: (sigma_n, sigma_(n-1), sigma_b) as `PhaseGrid.draw` gives them.

    Returns:
        (prediction, target); the target carries no gradient.
    """
    sigma_B, lower_B, boundary_B = levels
    with torch.no_grad():
        target = euler(stepped, student_ema(stepped, lower_B), lower_B, boundary_B)
    return euler(x, student(x, sigma_B), sigma_B, boundary_B), target


def pseudo_huber(prediction: Tensor, target: Tensor, c: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + c^2) - c: absolute error, made smooth below c."""
    difference = (prediction - target).float()
    return ((difference.square() + c * c).sqrt() - c).mean()
