"""Flow matching along straight lines from data (sigma 0) to noise (sigma 1), with a shifted schedule.

x_sigma = (1 - sigma) x0 + sigma noise; the network predicts the velocity dx/dsigma = noise - x0; its timestep is
1000 sigma (arXiv 2506.17201, section 3.1; the schedule is HunyuanVideo's, arXiv 2412.03603).

Axis legend: B batch, C latent channel, T latent frame, H height, W width, S step.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

TIMESTEPS = 1000.0  # the network's timestep at sigma = 1


def shift(sigma: Tensor, by: float) -> Tensor:
    """Move noise levels towards 1: `by * sigma / (1 + (by - 1) * sigma)`; 0 and 1 stay, `by = 1` changes nothing."""
    return by * sigma / (1 + (by - 1) * sigma)


def sigmas(num_steps: int, by: float) -> Tensor:
    """The grid of a sampler: [S + 1] float32, from exactly 1 down to exactly 0, no step wasted near 0.

    Raises:
        ValueError: if `num_steps` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"a sampler needs at least one step, not {num_steps}")
    return shift(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), by).float()


def draw_sigmas(
    batch_size: int, by: float, *, device: torch.device | str = "cpu", generator: Generator | None = None
) -> Tensor:
    """Noise levels [B] float32 for training: uniform before the shift, one in each of B equal slices.

    The slices take nothing from each level's distribution, and much from the variance of a batch's loss
    (arXiv 2107.00630, appendix I.1).
    """
    offset = torch.rand(1, device=device, generator=generator)
    return shift((torch.arange(batch_size, device=device) / batch_size + offset) % 1, by)


def fixed_sigmas(batch_size: int, by: float) -> Tensor:
    """Noise levels [B] for validation: the middles of B equal slices, shifted."""
    return shift((torch.arange(batch_size) + 0.5) / batch_size, by)


def interpolate(x0_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The point at `sigma` on the line from data to noise; sigma is [B], the rest any shape [B, ...]."""
    sigma = sigma_B.view(-1, *(1,) * (x0_BCTHW.ndim - 1))
    return (1 - sigma) * x0_BCTHW + sigma * noise_BCTHW


def velocity(x0_BCTHW: Tensor, noise_BCTHW: Tensor) -> Tensor:
    """What the network learns to predict: noise - x0."""
    return noise_BCTHW - x0_BCTHW


def euler(x_BCTHW: Tensor, velocity_BCTHW: Tensor, sigma_B: Tensor, target_B: Tensor) -> Tensor:
    """Follow the velocity in a straight line from one noise level to another; both levels are [B]."""
    step = (target_B - sigma_B).view(-1, *(1,) * (x_BCTHW.ndim - 1))
    return x_BCTHW + step * velocity_BCTHW


def guided(conditional: Tensor, unconditional: Tensor, w: Tensor | float) -> Tensor:
    """Classifier-free guidance with w = scale - 1 (arXiv 2506.17201, section 3.5): (1 + w) c - w u; w may be [B]."""
    if isinstance(w, Tensor):
        w = w.view(-1, *(1,) * (conditional.ndim - 1))
    return conditional + w * (conditional - unconditional)
