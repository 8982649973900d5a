"""The hyper-convolution generator against a slow loop written from the fact sheet, and the published sizes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from fulgurite.lightning_modules.dnd.hyperconv import HyperConvGenerator, HyperConvLayer

SMOLLM2 = [
    *((32, 64, 384), (64, 32, 256), (128, 16, 224), (256, 10, 208)),
    *((512, 10, 200), (1024, 10, 200), (1590, 10, 194)),
]
PUBLISHED = {
    "common sense 0.5B": (
        [
            *((128, 384, 384), (128, 200, 300), (128, 100, 256), (256, 50, 200), (512, 50, 200)),
            *((1024, 25, 200), (1024, 10, 200), (2048, 10, 200), (4296, 10, 130)),
        ],
        *(9, 1.11e9, 4.1e12),
    ),
    "coding 1.5B": (
        [
            *((16, 1000, 384), (64, 500, 300), (256, 125, 300), (512, 64, 300)),
            *((1024, 64, 256), (2048, 32, 256), (4508, 18, 258)),
        ],
        *(11, 1.72e9, 13.7e12),
    ),
    "math 1.5B": (
        [
            *((32, 1000, 384), (64, 500, 300), (256, 500, 300), (512, 125, 300)),
            *((1024, 64, 256), (2048, 32, 256), (4508, 18, 258)),
        ],
        *(11, 1.78e9, 19.0e12),
    ),
    "7B": (
        [
            *((16, 1000, 384), (64, 500, 384), (256, 125, 400), (512, 64, 400)),
            *((1024, 64, 400), (2048, 32, 400), (4928, 18, 514)),
        ],
        *(11, 1.94e9, 26.4e12),
    ),
    "multimodal 3B": (
        [*((16, 1536, 384), (64, 500, 300), (256, 125, 300), (1024, 64, 300), (2048, 16, 256), (7308, 18, 258))],
        *(11, 2.41e9, 14.4e12),
    ),
    "SmolLM2 k=3": (SMOLLM2, 3, 26.9e6, 61e9),
    "SmolLM2 k=5": (SMOLLM2, 5, 74.6e6, 169e9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cascades_have_their_sizes(name: str) -> None:
    shapes, kernel_size, num_parameters, num_macs = PUBLISHED[name]
    with torch.device("meta"):
        generator = HyperConvGenerator(shapes, kernel_size)
    assert generator.num_parameters == pytest.approx(num_parameters, rel=5e-3)
    assert generator.num_macs == pytest.approx(num_macs, rel=1e-2)
    k2 = kernel_size**2
    assert generator.num_parameters == sum(
        2 * h0 * w0 + 2 * k2 * (w0 * w1 + h0 * h1) + h1 * w1 + k2 * n0 * n1 + n1
        for (n0, h0, w0), (n1, h1, w1) in itertools.pairwise(shapes)
    )


def loop_conv(image: dict[tuple[int, int, int], float], size: tuple[int, int, int], weight: Tensor) -> dict:
    """Same-padded cross-correlation over image[channel, row, column], number by number."""
    channels, rows, columns = size
    half = weight.shape[-1] // 2
    kernel = weight.tolist()
    out = {}
    for o in range(len(kernel)):
        for r in range(rows):
            for c in range(columns):
                total = 0.0
                for i in range(channels):
                    for dr in range(-half, half + 1):
                        for dc in range(-half, half + 1):
                            total += kernel[o][i][dr + half][dc + half] * image.get((i, r + dr, c + dc), 0.0)
                out[o, r, c] = total
    return out


def loop_layer(layer: HyperConvLayer, x: Tensor) -> Tensor:
    """The layer by the words of the fact sheet: which axis is the channel and which two the image, step by step."""
    (n0, h0, w0), (n1, h1, w1) = layer.in_shape, layer.out_shape
    y = torch.empty_like(x)
    for n in range(n0):
        var, mean = torch.var_mean(x[n], correction=0)
        y[n] = (x[n] - mean) / (var + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
    value = {(n, h, w): y[n, h, w].item() for n in range(n0) for h in range(h0) for w in range(w0)}
    # Width first: W is the channel, (H, N) the image; then H is the channel, (N, W) the image.
    step = {(w, h, n): v for (n, h, w), v in value.items()}
    step = loop_conv(step, (w0, h0, n0), layer.width_first[0].weight)
    step = {(h, n, w): v for (w, h, n), v in step.items()}
    wide = loop_conv(step, (h0, n0, w1), layer.width_first[1].weight)
    # Height first: H is the channel, (N, W) the image; then W is the channel, (H, N) the image; then tanh.
    step = {(h, n, w): v for (n, h, w), v in value.items()}
    step = loop_conv(step, (h0, n0, w0), layer.height_first[0].weight)
    step = {(w, h, n): v for (h, n, w), v in step.items()}
    high = {key: math.tanh(v) for key, v in loop_conv(step, (w0, h1, n0), layer.height_first[1].weight).items()}
    bias = layer.bias_HW.tolist()
    mixed = {(n, h, w): (wide[h, n, w] + high[w, h, n] + bias[h][w]) / 3 for h, n, w in wide}
    long = loop_conv(mixed, (n0, h1, w1), layer.length.weight)
    out = torch.empty(n1, h1, w1, dtype=x.dtype)
    for (n, h, w), v in long.items():
        out[n, h, w] = v + layer.length.bias[n].item()
    return out + x if layer.in_shape == layer.out_shape else out


@pytest.mark.parametrize(
    ("in_shape", "out_shape", "kernel_size"),
    [((2, 3, 5), (4, 6, 3), 3), ((4, 2, 3), (3, 5, 2), 5), ((3, 2, 4), (3, 2, 4), 3), ((2, 3, 2), (1, 1, 4), 1)],
)
def test_layer_equals_the_loop(in_shape: tuple, out_shape: tuple, kernel_size: int) -> None:
    torch.manual_seed(0)
    layer = HyperConvLayer(in_shape, out_shape, kernel_size).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
        x = torch.randn(2, *in_shape, dtype=torch.float64)
        torch.testing.assert_close(layer(x), torch.stack([loop_layer(layer, sample) for sample in x]))


def test_initial_bias_lies_within_its_bound_and_only_the_length_convolution_has_one() -> None:
    layer = HyperConvLayer((4, 8, 16), (6, 5, 7), 3)
    assert layer.bias_HW.shape == (5, 7)
    assert 0 < layer.bias_HW.abs().max() <= 1 / 35
    assert [name for name, _ in layer.named_parameters() if name.endswith("bias")] == ["norm.bias", "length.bias"]


def test_every_parameter_learns_and_the_cascade_has_the_tokens_shape() -> None:
    torch.manual_seed(0)
    generator = HyperConvGenerator([(3, 8, 16), (5, 4, 10), (5, 4, 10), (7, 4, 6)], 3)
    out = generator(torch.randn(2, 3, 8, 16))
    assert out.shape == (2, 7, 4, 6)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_order_of_prompts_matters_and_batch_entries_do_not_mix() -> None:
    torch.manual_seed(0)
    generator = HyperConvGenerator([(3, 8, 16), (7, 4, 6)], 3).double()
    x = torch.randn(2, 3, 8, 16, dtype=torch.float64)
    assert not torch.allclose(generator(x), generator(x.flip(1)))
    torch.testing.assert_close(generator(x)[1:], generator(x[1:]))


@pytest.mark.parametrize("kernel_size", [0, 2, 4, -1, 3.0])
def test_bad_kernels_are_refused(kernel_size: int) -> None:
    with pytest.raises(ValueError, match="kernel_size must be an odd positive integer"):
        HyperConvLayer((2, 3, 4), (2, 3, 4), kernel_size)


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 4), (2, 3.0, 4), (1, 2, 3, 4)])
def test_bad_shapes_are_refused(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"shapes\[1\] must be three positive integers"):
        HyperConvGenerator([(2, 3, 4), shape], 3)


def test_a_cascade_needs_two_shapes_and_the_right_condition() -> None:
    with pytest.raises(ValueError, match="at least two shapes"):
        HyperConvGenerator([(2, 3, 4)], 3)
    with pytest.raises(ValueError, match=r"takes \[batch, 2, 3, 4\], got \[1, 2, 4, 3\]"):
        HyperConvGenerator([(2, 3, 4), (5, 4, 6)], 3)(torch.zeros(1, 2, 4, 3))


def test_one_pair_of_prompts_and_tokens_is_learnt() -> None:
    """The smallest sign of life: 95 % of the mean square of random tokens within a hundred steps."""
    torch.manual_seed(0)
    generator = HyperConvGenerator([(4, 8, 48), (16, 4, 18), (60, 4, 18)], 3)
    condition, target = torch.randn(1, 4, 8, 48), torch.randn(1, 60, 4, 18)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(100):
        loss = (generator(condition) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * target.square().mean().item()


def test_the_last_layer_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    network = HyperConvGenerator([[4, 8, 16], [6, 4, 12], [9, 4, 10]], 3).eval()
    condition = torch.randn(2, 4, 8, 16)
    hidden = network.layers[0](condition)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network.layers[0](condition)
        out = network(condition)
    assert rounded.dtype == torch.bfloat16 and out.dtype == torch.float32
    torch.testing.assert_close(out, network.layers[1](rounded.float()), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(out, network.layers[1](hidden), rtol=1e-6, atol=1e-7)
