"""Flow matching: schedule, lines and steps."""

from __future__ import annotations

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.flow import (
    draw_sigmas,
    euler,
    fixed_sigmas,
    guided,
    interpolate,
    shift,
    sigmas,
    velocity,
)


def test_eight_steps_at_shift_five_are_the_published_grid_without_a_wasted_step() -> None:
    wanted = [1, 0.972, 0.938, 0.893, 0.833, 0.75, 0.625, 0.417, 0]
    grid = sigmas(8, 5.0)
    assert grid[0] == 1 and grid[-1] == 0
    torch.testing.assert_close(grid, torch.tensor(wanted), atol=6e-4, rtol=0)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        sigmas(0, 1.0)


def test_one_exact_step_leads_from_noise_to_data() -> None:
    x0, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    sigma = torch.tensor([0.2, 0.7, 1.0])
    x = interpolate(x0, noise, sigma)
    back = euler(x, velocity(x0, noise), sigma, torch.zeros(3))
    torch.testing.assert_close(back, x0, atol=1e-6, rtol=1e-5)


def test_drawn_levels_are_uniform_before_the_shift_and_spread_over_the_batch() -> None:
    drawn = torch.stack([draw_sigmas(4, 3.0) for _ in range(2000)])
    expected = shift((torch.arange(1000) + 0.5) / 1000, 3.0)
    assert abs(drawn.mean() - expected.mean()) < 0.01
    assert abs(drawn.median() - 0.75) < 0.02
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    assert torch.equal(fixed_sigmas(4, 1.0), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_guidance_weight_zero_is_the_conditional_alone() -> None:
    c, u = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(guided(c, u, 0.0), c)
    torch.testing.assert_close(
        guided(c, u, torch.tensor([1.0, 2.0])), torch.stack([2 * c[0] - u[0], 3 * c[1] - 2 * u[1]])
    )
