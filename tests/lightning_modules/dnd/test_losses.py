"""The generator's loss: weights, unused cells, precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fulgurite.lightning_modules.dnd.losses import weighted_token_mse


def tokens(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed))


def test_equals_the_definition() -> None:
    out, target, weight = tokens(0), tokens(1), torch.tensor([0.5, 0.0, 2.5])
    wanted = 0.0
    for b in range(2):
        for t in range(3):
            wanted += weight[t].item() * ((out[b, t] - target[b, t]) ** 2).sum().item()
    assert weighted_token_mse(out, target, weight).item() == pytest.approx(wanted / out.numel(), rel=1e-5)
    assert weighted_token_mse(out, target).item() == pytest.approx(torch.nn.functional.mse_loss(out, target).item())


def test_unused_cells_count_neither_in_the_mean_nor_in_the_gradient() -> None:
    out, target = tokens(0).requires_grad_(), tokens(1)
    mask = torch.ones(3, 4, 6, dtype=torch.bool)
    mask[1, 2:] = False
    target[:, 1, 2:] = math.nan
    loss = weighted_token_mse(out, target, torch.ones(3), mask)
    kept = (out - target)[mask.expand_as(out)]
    assert loss.item() == pytest.approx(kept.square().mean().item(), rel=1e-5)
    loss.backward()
    assert out.grad.isfinite().all()
    assert not out.grad[:, 1, 2:].any()


def test_bf16_input_is_compared_in_fp32() -> None:
    out = torch.full((1, 1, 4, 6), 1.0, dtype=torch.bfloat16)
    loss = weighted_token_mse(out, torch.full((1, 1, 4, 6), 1.001))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-2)


@pytest.mark.parametrize(
    ("target", "weight", "mask", "text"),
    [
        (torch.zeros(2, 3, 4, 5), None, None, "share one shape"),
        (torch.zeros(2, 3, 4, 6), torch.ones(2), None, r"token_weight must be \[3\]"),
        (torch.zeros(2, 3, 4, 6), None, torch.ones(3, 4, 5, dtype=torch.bool), r"mask must be \[3, 4, 6\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(target: Tensor, weight: Tensor, mask: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        weighted_token_mse(tokens(0), target, weight, mask)
