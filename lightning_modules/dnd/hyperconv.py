"""The cascaded hyper-convolution generator: prompt states in, weight tokens out (arXiv 2506.16406; its hyperconv.py).

Pure torch. Axis legend: B batch, N length (first the prompts, at last the weight tokens), H height (first the text
tokens, at last LoRA rank + 2), W width (first the encoder's channels, at last chunk + 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def _check_shape(shape: Sequence[int], name: str) -> Shape:
    if len(shape) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise ValueError(f"{name} must be three positive integers (length, height, width), got {tuple(shape)}")
    return (shape[0], shape[1], shape[2])


def _check_kernel(kernel_size: int) -> None:
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be an odd positive integer, since 'same' padding needs a centre, got {kernel_size!r}"
        )


class HyperConvLayer(nn.Module):
    """One layer: five 2-D convolutions, each of which takes another axis for its channels.

    With x = LayerNorm(input) over the last two axes (affine):

    - width first: convolve with W as channels over the image (H, N), then with H as channels over (N, W);
    - height first: convolve with H as channels over (N, W), then with W as channels over (H, N), then tanh;
    - (width first + height first + bias[H, W]) / 3;
    - length: convolve with N as channels over (H, W).

    The four branch convolutions have no bias, the length convolution has one. Kernels are square, stride 1, padded to
    the same size. A residual is added if the shapes are equal. The tanh, the norm, the division by 3 and the kernel
    sizes follow the authors' code; the paper's formula leaves them out.

    Args:
        in_shape: (N0, H0, W0) without the batch axis.
        out_shape: (N1, H1, W1).
        kernel_size: odd side of every kernel; the authors use 9 and 11.

    Raises:
        ValueError: if a shape isn't three positive integers, or the kernel is even.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], kernel_size: int) -> None:
        super().__init__()
        self.in_shape = n0, h0, w0 = _check_shape(in_shape, "in_shape")
        self.out_shape = n1, h1, w1 = _check_shape(out_shape, "out_shape")
        _check_kernel(kernel_size)
        self.kernel_size = kernel_size

        def conv(channels_in: int, channels_out: int, bias: bool = False) -> nn.Conv2d:
            return nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=bias)

        self.norm = nn.LayerNorm((h0, w0))
        self.width_first = nn.ModuleList([conv(w0, w1), conv(h0, h1)])
        self.height_first = nn.ModuleList([conv(h0, h1), conv(w0, w1)])
        bound = 1 / (h1 * w1)
        self.bias_HW = nn.Parameter(torch.empty(h1, w1).uniform_(-bound, bound))
        self.length = conv(n0, n1, bias=True)

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of the convolutions for one sample, padding counted as if it were data."""
        (n0, h0, w0), (n1, h1, w1) = self.in_shape, self.out_shape
        width_first = n0 * h0 * w0 * w1 + n0 * w1 * h0 * h1
        height_first = n0 * w0 * h0 * h1 + n0 * h1 * w0 * w1
        return self.kernel_size**2 * (width_first + height_first + n0 * n1 * h1 * w1)

    def forward(self, x_BNHW: Tensor) -> Tensor:
        """Map one shape to the next.

        Args:
            x_BNHW: [B, N0, H0, W0], floating point.

        Returns:
            [B, N1, H1, W1].

        Raises:
            ValueError: if the last three axes aren't `in_shape`.
        """
        if x_BNHW.ndim != 4 or tuple(x_BNHW.shape[1:]) != self.in_shape:
            expected = ", ".join(map(str, self.in_shape))
            raise ValueError(f"this layer takes [batch, {expected}], got {list(x_BNHW.shape)}")
        y_BNHW = self.norm(x_BNHW)
        wide_BWHN = self.width_first[0](y_BNHW.permute(0, 3, 2, 1))
        wide_BHNW = self.width_first[1](wide_BWHN.permute(0, 2, 3, 1))
        high_BHNW = self.height_first[0](y_BNHW.permute(0, 2, 1, 3))
        high_BWHN = self.height_first[1](high_BHNW.permute(0, 3, 1, 2)).tanh()
        mixed_BNHW = (wide_BHNW.permute(0, 2, 1, 3) + high_BWHN.permute(0, 3, 2, 1) + self.bias_HW) / 3
        out_BNHW: Tensor = self.length(mixed_BNHW)
        return out_BNHW + x_BNHW if self.in_shape == self.out_shape else out_BNHW

    def extra_repr(self) -> str:
        """Shapes and kernel, shown in the module's printout."""
        return f"{self.in_shape} -> {self.out_shape}, kernel_size={self.kernel_size}"


class HyperConvGenerator(nn.Module):
    """A cascade of `HyperConvLayer`s, with nothing between them and nothing after the last.

    The prompts' axis is both an image axis and a channel axis, so the output depends on the order of the prompts.

    Args:
        shapes: the states' shapes (N, H, W), at least two. The first is the condition's (prompts, text tokens,
            encoder channels), the last the weight tokens' (tokens, rank + 2, chunk + 2).
        kernel_size: odd side of every kernel.

    Raises:
        ValueError: if there are fewer than two shapes, a shape isn't three positive integers, or the kernel is even.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        if len(shapes) < 2:
            raise ValueError(f"a cascade needs at least two shapes, condition and tokens, got {list(shapes)}")
        self.shapes = tuple(_check_shape(shape, f"shapes[{i}]") for i, shape in enumerate(shapes))
        self.kernel_size = kernel_size
        pairs = zip(self.shapes[:-1], self.shapes[1:], strict=True)
        self.layers = nn.ModuleList(HyperConvLayer(first, second, kernel_size) for first, second in pairs)

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of one forward pass for one sample; forward and backward cost about three times it."""
        return sum(layer.num_macs for layer in self.layers if isinstance(layer, HyperConvLayer))

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, condition_BNLC: Tensor) -> Tensor:
        """Generate weight tokens.

        The last layer runs in full fp32 whatever the precision around it (autocast, TF32): it makes the scale codes,
        and one rounding step of bf16 in a code changes the size of a small B by 15 %.

        Args:
            condition_BNLC: [B, prompts, text tokens, encoder channels], floating point.

        Returns:
            [B, tokens, rank + 2, chunk + 2], fp32 (float64 if the network is).

        Raises:
            ValueError: if the condition hasn't the cascade's first shape.
        """
        x_BNHW = condition_BNLC
        for layer in self.layers[:-1]:
            x_BNHW = layer(x_BNHW)
        kind = x_BNHW.device.type
        exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        plain = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
        with plain, exact:
            if x_BNHW.dtype in (torch.bfloat16, torch.float16):
                x_BNHW = x_BNHW.float()
            out_BTHW: Tensor = self.layers[-1](x_BNHW)
        return out_BTHW
