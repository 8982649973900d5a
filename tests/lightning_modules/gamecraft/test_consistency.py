"""Phased consistency: the grid's rules, and a toy where the student beats as many steps of the exact teacher."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fulgurite.lightning_modules.gamecraft.averaging import MovingAverage
from fulgurite.lightning_modules.gamecraft.consistency import (
    PhaseGrid,
    consistency_pair,
    guided_step,
    pseudo_huber,
)
from fulgurite.lightning_modules.gamecraft.flow import interpolate, sigmas


def test_boundaries_are_the_samplers_levels_and_never_cross_a_phase() -> None:
    grid = PhaseGrid(48, 8, 5.0)
    n = torch.arange(1, 49)
    assert grid.sigma(torch.tensor(48)) == 1 and grid.sigma(torch.tensor(0)) == 0
    assert torch.equal(grid.boundary(n).unique(), torch.arange(0, 48, 6))
    assert ((grid.boundary(n) < n) & (n - grid.boundary(n) <= 6)).all()
    assert grid.boundary(torch.tensor(7)) == 6 and grid.boundary(torch.tensor(6)) == 0
    levels = torch.cat([torch.ones(1), grid.sigma(torch.arange(42, -1, -6))])
    assert torch.equal(levels, sigmas(8, 5.0))


def test_levels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        PhaseGrid(50, 8, 5.0)


def test_target_is_the_teachers_step_where_it_lands_on_the_boundary_and_both_sides_share_it() -> None:
    grid, seen = PhaseGrid(4, 2, 1.0), []

    def student(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma)
        return torch.ones_like(x)

    n = torch.tensor([3, 4])  # of the upper phase: 3 steps onto its boundary (2), 4 steps to 3
    levels = (grid.sigma(n), grid.sigma(n - 1), grid.sigma(grid.boundary(n)))
    x, stepped = torch.zeros(2, 1), torch.tensor([[5.0], [7.0]])
    prediction, target = consistency_pair(student, student, x, stepped, levels)
    assert torch.equal(target, torch.tensor([[5.0], [7.0 - 0.25]]))
    assert torch.equal(prediction, torch.tensor([[-0.25], [-0.5]]))
    assert torch.equal(seen[0], levels[1]) and torch.equal(seen[1], levels[0])


class ToyNet(nn.Module):
    """Velocity of a point on the line, with w as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(9, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1))

    def forward(self, x: Tensor, sigma: Tensor, w: Tensor) -> Tensor:
        s = sigma[:, None]
        waves = [f(k * math.pi * s) for k in (1, 2) for f in (torch.sin, torch.cos)]
        return self.net(torch.cat([x, x * s, s, *waves, w[:, None], w[:, None] * s], 1))


CENTRES, WIDTH = torch.tensor([-2.0, 0.5, 2.0]), 0.25
BRIGHT = torch.tensor([0.1, 0.1, 0.8])  # the condition prefers one of the three


def exact_velocity(x: Tensor, sigma: Tensor, weights: Tensor) -> Tensor:
    """E[noise - x0 | x] for a mixture of three narrow normals: known in closed form, so the teacher is exact."""
    s = sigma.clamp(1e-4, 1)[:, None]
    variance = (1 - s) ** 2 * WIDTH**2 + s**2
    log = -((x - (1 - s) * CENTRES) ** 2) / (2 * variance) + weights.log()
    share = log.softmax(1)
    residual = x - (1 - s) * CENTRES
    x0 = CENTRES + (1 - s) * WIDTH**2 / variance * residual
    noise = s / variance * residual
    return (share * (noise - x0)).sum(1, keepdim=True)


def teacher(x: Tensor, sigma: Tensor, w: Tensor) -> Tensor:
    conditional = exact_velocity(x, sigma, BRIGHT)
    return conditional + w[:, None] * (conditional - exact_velocity(x, sigma, torch.ones(3) / 3))


def end_points(velocity_of, noise: Tensor, w: Tensor, num_steps: int, by: float) -> Tensor:
    x = noise
    grid = sigmas(num_steps, by).tolist()
    for level, lower in itertools.pairwise(grid):
        x = x + (lower - level) * velocity_of(x, torch.full((len(x),), level), w)
    return x


def test_student_beats_as_many_euler_steps_of_the_exact_guided_teacher() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    by, phases, grid = 2.0, 8, PhaseGrid(48, 8, 2.0)
    student = ToyNet()
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        kind = torch.multinomial(BRIGHT, size, replacement=True)
        return CENTRES[kind][:, None] + WIDTH * torch.randn(size, 1), torch.randn(size, 1), 2 * torch.rand(size)

    noise, w_test = torch.randn(2048, 1), 2 * torch.rand(2048)
    with torch.no_grad():
        truth = end_points(teacher, noise, w_test, 400, by)
        teacher_error = (end_points(teacher, noise, w_test, phases, by) - truth).abs().mean()
    for _ in range(600):  # the student starts as the teacher, as far as a network can
        x0, eps, w = batch(512)
        sigma = torch.rand(512)
        x = interpolate(x0, eps, sigma)
        loss = (student(x, sigma, w) - teacher(x, sigma, w)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        before = (end_points(student, noise, w_test, phases, by) - truth).abs().mean()
    average = MovingAverage(student, 0.95)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2500)
    for step in range(1, 2501):
        x0, eps, w = batch(512)
        levels = grid.draw(512)
        x = interpolate(x0, eps, levels[0])
        stepped = guided_step(
            exact_velocity(x, levels[0], BRIGHT), exact_velocity(x, levels[0], torch.ones(3) / 3), w, x, *levels[:2]
        )
        pair = consistency_pair(
            lambda x, s, w=w: student(x, s, w), lambda x, s, w=w: average.average(x, s, w), x, stepped, levels
        )
        loss = pseudo_huber(*pair)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update(student, step)
    with torch.no_grad():
        after = (end_points(average.average, noise, w_test, phases, by) - truth).abs().mean()
    torch.set_num_threads(threads)
    print(f"teacher {teacher_error:.3f}, student before {before:.3f}, after {after:.3f}")
    assert after < 0.6 * teacher_error < before
