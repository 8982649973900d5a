"""The twelve-way judge and the copy baselines, where the right answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.metrics.baselines import (
    COPY_HISTORY,
    COPY_PREVIOUS,
    MEAN_IMAGE,
    REPLAY_HISTORY,
    FrameErrors,
    baselines,
    mean_and_error,
)
from fulgurite.lightning_modules.gamecraft.metrics.counterfactual import CounterfactualAccuracy, squared_distances


def judged(made: torch.Tensor, real: torch.Tensor) -> CounterfactualAccuracy:
    metric = CounterfactualAccuracy(12)
    for m, r in zip(made, real, strict=True):
        metric.update(squared_distances(m, r))
    return metric


def test_an_oracle_gets_everything_and_a_constant_gets_chance() -> None:
    real = torch.randn(5, 12, 30, generator=torch.Generator().manual_seed(0))
    assert float(judged(real, real).compute()) == 1.0
    constant = real.mean((0, 1), keepdim=True).expand_as(real)
    assert float(judged(constant, real).compute()) == pytest.approx(1 / 12)


def test_real_answers_that_are_equal_share_the_vote() -> None:
    real = torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(1))
    real[0, 3] = real[0, 4]
    metric = judged(real, real)
    assert float(metric.compute()) == pytest.approx(11 / 12)
    assert metric.confusion()[3, [3, 4]].tolist() == [0.5, 0.5]


def test_the_confusion_matrix_names_the_answer_that_was_taken() -> None:
    real = torch.eye(12)[None]
    made = real.roll(-1, dims=1)  # each action gives the answer of the next one
    confusion = judged(made, real).confusion()
    assert torch.equal(confusion, torch.eye(12).roll(-1, dims=0).double())
    assert float(judged(made, real).compute()) == 0.0


def test_psnr_and_ssim_of_known_pictures() -> None:
    real = torch.full((2, 16, 3, 16, 16), 100, dtype=torch.uint8)
    made = real.clone()
    made[:, 8:] = 110
    errors = FrameErrors(ssim_stride=2)
    errors.update(made, real)
    assert errors.psnr_B(1, 8).tolist() == [60.0, 60.0]
    assert float(errors.psnr_B(9, 16)[0]) == pytest.approx(-20 * math.log10(10 / 255), rel=1e-4)
    assert float(errors.psnr_B(1, 16)[0]) == pytest.approx(float(errors.psnr_B(9, 16)[0]) + 3.0103, rel=1e-4)
    assert errors.ssim_B(1, 8).tolist() == pytest.approx([1.0, 1.0])


def test_the_baselines_are_what_their_names_say() -> None:
    g = torch.Generator().manual_seed(2)
    history, real = torch.randint(0, 255, (2, 3, 33, 3, 8, 8), generator=g, dtype=torch.uint8)
    made = baselines(real, history, torch.full((3, 8, 8), 7.2))
    assert all(torch.equal(made[COPY_HISTORY][:, t], history[:, -1]) for t in range(33))
    assert torch.equal(made[REPLAY_HISTORY], history)
    assert torch.equal(made[COPY_PREVIOUS][:, 1:], real[:, :-1])
    assert torch.equal(made[COPY_PREVIOUS][:, 0], history[:, -1])
    assert made[MEAN_IMAGE].unique().tolist() == [7]
    alone = baselines(real, history[:, -1:], torch.zeros(3, 8, 8))
    assert torch.equal(alone[REPLAY_HISTORY], alone[COPY_HISTORY])


def test_the_standard_error_of_a_mean() -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(3)) * 2
    mean, error = mean_and_error(x)
    assert mean == pytest.approx(float(x.mean()), rel=1e-5)
    assert error == pytest.approx(2 / 20, rel=0.2)
