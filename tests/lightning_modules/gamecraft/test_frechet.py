"""The Fréchet video distance: what it has to be on sets whose answer is known, and that corruption raises it."""

from __future__ import annotations

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.metrics.frechet import (
    Directions,
    FrechetVideoDistance,
    corrupt,
    corruption_ladder,
    distance,
    is_monotone,
)
from fulgurite.registry import UserError


def test_equal_sets_are_at_no_distance_and_a_shift_counts_squared() -> None:
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    assert distance(x, x) == pytest.approx(0, abs=1e-8)
    assert distance(x, x + 2) == pytest.approx(6 * 4, rel=1e-6)


def test_two_gaussians_agree_with_the_formula_for_commuting_covariances() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(20_000, 4, generator=g, dtype=torch.float64)
    y = 3 * torch.randn(20_000, 4, generator=g, dtype=torch.float64)
    assert distance(x, y) == pytest.approx(4 * (3 - 1) ** 2, rel=0.03)


def test_batches_add_up_to_the_whole() -> None:
    x, y = torch.randn(2, 100, 5, generator=torch.Generator().manual_seed(2))
    metric = FrechetVideoDistance(5)
    for part in x.split(30):
        metric.update(part, real=True)
    for part in y.split(7):
        metric.update(part, real=False)
    assert float(metric.compute()) == pytest.approx(distance(x, y), rel=1e-9)


def test_too_few_clips_for_the_dimensions_are_refused() -> None:
    x = torch.randn(127, 64)
    with pytest.raises(UserError, match="needs 128 clips a side, there are 127"):
        distance(x, x)


def test_directions_fit_the_number_of_clips_and_have_unit_variance() -> None:
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(3))
    directions = Directions(x, num_clips=len(x))
    assert directions.dim == 20
    assert directions(x).var(0) == pytest.approx(torch.ones(20).double().numpy(), rel=1e-6)
    assert distance(directions(x), directions(x)) == pytest.approx(0, abs=1e-8)


def test_corruptions_do_what_they_say() -> None:
    clips = torch.arange(10, dtype=torch.uint8).reshape(1, 10, 1, 1, 1).expand(2, 10, 3, 4, 4)
    for kind in ("noise", "shuffle", "freeze"):
        assert torch.equal(corrupt(clips, kind, 0.0, seed=0), clips)
    frozen = corrupt(clips, "freeze", 0.5, seed=0)[0, :, 0, 0, 0].tolist()
    assert frozen == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    shuffled = corrupt(clips, "shuffle", 1.0, seed=0)[0, :, 0, 0, 0].tolist()
    assert sorted(shuffled) == list(range(10)) and shuffled != list(range(10))


def test_the_ladder_rises_with_features_that_see_noise_and_motion() -> None:
    g = torch.Generator().manual_seed(4)
    wide = torch.nn.functional.interpolate(
        torch.rand(24, 3, 16, 32, generator=g) * 255, scale_factor=4, mode="bilinear"
    )
    speed = torch.rand(24, generator=g)
    clips = torch.stack(
        [
            torch.stack([w[:, :32, int(s * 3 * t) : int(s * 3 * t) + 48] for t in range(12)])
            for w, s in zip(wide, speed, strict=True)
        ]
    ).to(torch.uint8)

    def features(x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        step = (x[:, 1:] - x[:, :-1]).abs().mean((2, 3, 4))
        edge = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3, 4))
        return torch.stack([step.mean(1), edge], 1)

    ladder = corruption_ladder(clips, features, Directions(features(clips), len(clips)))
    assert is_monotone(ladder), ladder
    assert not is_monotone({"noise": [(0, 0.0), (1, 2.0), (2, 1.0)]})
