"""The cascade laid out for tensor cores is the same function as the published one."""

from __future__ import annotations

import copy

import pytest
import torch

from fulgurite.lightning_modules.dnd.fast_hyperconv import filled, lay_out
from fulgurite.lightning_modules.dnd.hyperconv import HyperConvGenerator

SHAPES = [[6, 12, 20], [6, 12, 20], [10, 5, 9], [13, 4, 10]]  # one residual, axes that are no multiples of 8


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("batch", [1, 2])
def test_outputs_and_gradients_are_those_of_the_published_order(kernel_size: int, batch: int) -> None:
    torch.manual_seed(0)
    plain = HyperConvGenerator(SHAPES, kernel_size).double()
    fast = lay_out(copy.deepcopy(plain))
    condition = torch.randn(batch, *SHAPES[0], dtype=torch.float64)
    target = torch.randn(batch, *SHAPES[-1], dtype=torch.float64)
    inputs = [condition.clone().requires_grad_(), condition.clone().requires_grad_()]
    outputs = [network(x) for network, x in zip((plain, fast), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-10, atol=1e-12)
    for out in outputs:
        (out - target).square().mean().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-8, atol=1e-14)
    for (name, one), (other_name, other) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-14, msg=name)


def test_under_autocast_the_last_product_is_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    plain = HyperConvGenerator(SHAPES, 3)
    fast = lay_out(copy.deepcopy(plain))
    condition = torch.randn(1, *SHAPES[0])
    exact = plain(condition)
    with torch.autocast("cpu", torch.bfloat16):
        made = fast(condition)
    assert made.dtype == torch.float32
    assert (made - made.bfloat16().float()).abs().max() > 0
    assert ((made - exact).norm() / exact.norm()) < 0.01


def test_weights_keep_their_names_and_load_into_each_other() -> None:
    torch.manual_seed(0)
    plain, fast = HyperConvGenerator(SHAPES, 3), lay_out(HyperConvGenerator(SHAPES, 3))
    fast.load_state_dict(plain.state_dict())
    condition = torch.randn(1, *SHAPES[0])
    torch.testing.assert_close(fast(condition), plain(condition), rtol=1e-4, atol=1e-5)


def test_an_axis_is_filled_with_zeros_and_last_in_memory() -> None:
    x = torch.randn(2, 3, 5, 9)
    y = filled(x, 1)
    assert y.shape == (2, 8, 5, 9) and y.stride(1) == 1
    assert torch.equal(y[:, :3], x) and not y[:, 3:].any()
