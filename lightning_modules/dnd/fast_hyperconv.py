"""The cascade as tensor cores like it: the same function of the same weights, its axes laid out for cuDNN.

A convolution whose channels are W reads [B, N, H, W] as it lies, if its image is (N, H) and its kernel is transposed:
that is cuDNN's channels-last order. One whose channels are H wants [B, N, W, H], one transposition. So each branch
costs one copy between its two convolutions, where the published order (`hyperconv`) leaves cuDNN to copy four times.
Channels are filled up to multiples of 8, without which bf16 has no fast kernel; what is added is zero, as the margin of
of an image is what "same" padding puts there anyway. The last layer's length convolution, whose output has to be exact
(`HyperConvGenerator.forward`), is a matrix product of bf16 factors that is summed and kept in fp32.

Axis legend: B batch, N length, H height, W width (first layer: prompts, text tokens, channels), K taps x channels,
P pixels of an image, O output channels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .hyperconv import HyperConvGenerator, HyperConvLayer

ALIGNMENT = 8


class FastHyperConvLayer(HyperConvLayer):
    """`HyperConvLayer` with its axes laid out for channels-last convolutions."""

    def forward(self, x_BNHW: Tensor) -> Tensor:
        """Map one shape to the next, as the base does; the output has channels (N) last in memory."""
        length = self.length
        mixed_BNHW = filled(self.mixed(x_BNHW).permute(0, 2, 3, 1), 3).permute(0, 3, 1, 2)
        out_BNHW = F.conv2d(mixed_BNHW, padded(length.weight), padding=self.kernel_size // 2)
        assert length.bias is not None
        out_BNHW = out_BNHW[:, : self.out_shape[0]] + length.bias[:, None, None]
        return out_BNHW + x_BNHW if self.in_shape == self.out_shape else out_BNHW

    def mixed(self, x_BNHW: Tensor) -> Tensor:
        """Both branches' mean, what the length convolution takes: [B, N0, H1, W1]."""
        (_, h1, w1), pad = self.out_shape, self.kernel_size // 2
        wide_first, wide_second = cast("list[Tensor]", [conv.weight for conv in self.width_first])
        high_first, high_second = cast("list[Tensor]", [conv.weight for conv in self.height_first])
        y_BNHW = self.norm(x_BNHW.contiguous())
        turned_BNWH = filled(y_BNHW.transpose(2, 3), 3)
        wide_BWNH = F.conv2d(filled(y_BNHW, 3).permute(0, 3, 1, 2), turned(wide_first), padding=pad)
        wide_BHNW = F.conv2d(filled(wide_BWNH.transpose(1, 3), 1), padded(wide_second), padding=pad)
        high_BHNW = F.conv2d(turned_BNWH.permute(0, 3, 1, 2), padded(high_first), padding=pad)
        high_BWNH = F.conv2d(filled(high_BHNW.transpose(1, 3), 1), turned(high_second), padding=pad)
        wide_BNHW = wide_BHNW[:, :h1, :, :w1].permute(0, 2, 1, 3)
        high_BNHW = high_BWNH[:, :w1, :, :h1].permute(0, 2, 3, 1)
        return (wide_BNHW + high_BNHW.tanh() + self.bias_HW) / 3


class LastFastLayer(FastHyperConvLayer):
    """The last of a cascade: fp32 out, whatever autocast says, of factors in the number format around it."""

    def forward(self, x_BNHW: Tensor) -> Tensor:
        """[B, N1, H1, W1] fp32 (float64 if the layer is)."""
        mixed_BNHW, weight_OK = self.mixed(x_BNHW), self.length.weight.flatten(1)
        if torch.is_autocast_enabled(x_BNHW.device.type):
            kind = torch.get_autocast_dtype(x_BNHW.device.type)
            mixed_BNHW, weight_OK = mixed_BNHW.to(kind), weight_OK.to(kind)
        with torch.autocast(x_BNHW.device.type, enabled=False):
            taps_BKP = F.unfold(mixed_BNHW, self.kernel_size, padding=self.kernel_size // 2)
            out_BOP = torch.stack([WideProduct.apply(weight_OK, taps_KP) for taps_KP in taps_BKP])
            assert self.length.bias is not None
            out_BNHW = out_BOP.unflatten(2, self.out_shape[1:]) + self.length.bias[:, None, None]
            return out_BNHW + x_BNHW if self.in_shape == self.out_shape else out_BNHW


class WideProduct(torch.autograd.Function):
    """Matrix product of low-precision factors, summed and kept in fp32; gradients in the factors' format."""

    @staticmethod
    def forward(ctx: Any, left_OK: Tensor, right_KP: Tensor) -> Tensor:
        """[O, P], fp32 of half-precision factors, else in their format."""
        ctx.save_for_backward(left_OK, right_KP)
        if left_OK.dtype not in (torch.bfloat16, torch.float16):
            return left_OK @ right_KP
        if left_OK.is_cuda:
            return torch.mm(left_OK, right_KP, out_dtype=torch.float32)
        return left_OK.float() @ right_KP.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both factors."""
        left_OK, right_KP = ctx.saved_tensors
        grad_OP = grads[0].to(left_OK.dtype)
        return grad_OP @ right_KP.T, left_OK.T @ grad_OP


def lay_out(network: HyperConvGenerator) -> HyperConvGenerator:
    """Let a cascade compute by these layers, in place; its weights and their names stay."""
    for layer in network.layers:
        assert isinstance(layer, HyperConvLayer)
        layer.__class__ = FastHyperConvLayer
        weight = layer.length.weight
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    last = network.layers[-1]
    last.__class__ = LastFastLayer
    assert isinstance(last, HyperConvLayer)
    last.length.weight.data = last.length.weight.data.contiguous()
    network.__class__ = FastHyperConvGenerator
    return network


class FastHyperConvGenerator(HyperConvGenerator):
    """`HyperConvGenerator` of these layers."""

    def forward(self, condition_BNLC: Tensor) -> Tensor:
        """[B, tokens, rank + 2, chunk + 2], fp32 (float64 if the network is)."""
        x_BNHW = condition_BNLC
        for layer in self.layers:
            x_BNHW = layer(x_BNHW)
        return x_BNHW


def filled(x: Tensor, axis: int) -> Tensor:
    """Zeros put at an axis' end until its length is a multiple of 8; that axis is last in memory afterwards."""
    rest = -x.shape[axis] % ALIGNMENT
    moved = x.movedim(axis, -1)
    return (F.pad(moved, (0, rest)) if rest else moved.contiguous()).movedim(-1, axis)


def padded(weight_OIKK: Tensor) -> Tensor:
    """A kernel with both kinds of channels filled up, input channels last in memory."""
    outputs, inputs = (-n % ALIGNMENT for n in weight_OIKK.shape[:2])
    weight_OIKK = F.pad(weight_OIKK, (0, 0, 0, 0, 0, inputs, 0, outputs)) if inputs or outputs else weight_OIKK
    return weight_OIKK.contiguous(memory_format=torch.channels_last)


def turned(weight_OIKK: Tensor) -> Tensor:
    """`padded`, for an image whose rows and columns are exchanged."""
    return padded(weight_OIKK.transpose(2, 3))
