"""The autoencoder's blocks as a GPU likes them: channels last, and what lies between two convolutions as one operation.

cuDNN's convolutions want channels last, and copy what comes otherwise; torch's group norm and its upsampling give it
back otherwise. So both are written out on [B, F, H, W, C], and compiled together with the padding in time that follows:
a sum over the input, then one pass over it. Gradients come with channels last too.

Axis legend: B batch, C channel, F frame, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoCausalConv3d,
    HunyuanVideoResnetBlockCausal3D,
    HunyuanVideoUpsampleCausal3D,
)
from torch import Tensor, nn

from ...registry import UserError
from .training import RECOMPILES
from .vae import GameplayVAE, SteadyNorm


def norm_silu(
    x_BFHWC: Tensor, weight_C: Tensor, bias_C: Tensor, num_groups: int, eps: float, num_before: int
) -> Tensor:
    """SiLU of the group norm, with the first frame `num_before` times more before it; statistics in float32.

    Returns:
        [B, F + num_before, H, W, C] in the input's dtype.
    """
    x = x_BFHWC.float().unflatten(4, (num_groups, -1))
    variance, mean = torch.var_mean(x, dim=(1, 2, 3, 5), correction=0, keepdim=True)
    x = ((x - mean) * torch.rsqrt(variance + eps)).flatten(4)
    made = nn.functional.silu(x * weight_C.float() + bias_C.float()).to(x_BFHWC.dtype)
    return torch.cat([made[:, :1]] * num_before + [made], 1)


def nearest(x_BFHWC: Tensor, factors: tuple[int, int, int], num_before: int) -> Tensor:
    """Every pixel repeated by the factors of time, height and width, but the first frame not in time, and put before.

    Returns:
        [B, num_before + 1 + (F - 1) factors[0], H factors[1], W factors[2], C].
    """
    times, high, wide = factors
    b, f, h, w, c = x_BFHWC.shape
    x = x_BFHWC[:, :, :, None, :, None].expand(b, f, h, high, w, wide, c).reshape(b, f, h * high, w * wide, c)
    later = x[:, 1:, None].expand(b, f - 1, times, *x.shape[2:]).reshape(b, -1, *x.shape[2:])
    return torch.cat([x[:, :1]] * (num_before + 1) + [later], 1)


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled for each shape that comes."""
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, RECOMPILES)
    made: Callable[..., Tensor] = torch.compile(function, dynamic=False)
    return made


def with_channels_last(function: Callable[..., Tensor], x_BCFHW: Tensor, *rest: Any, any_batch: bool = False) -> Tensor:
    """A function of [B, F, H, W, C] called with [B, C, F, H, W], whose memory has channels last before and after."""
    x_BFHWC = x_BCFHW.permute(0, 2, 3, 4, 1).contiguous()
    if any_batch and len(x_BFHWC) > 1:  # torch specialises on 1 by itself
        torch._dynamo.mark_dynamic(x_BFHWC, 0)
    return compiled(function)(x_BFHWC, *rest).permute(0, 4, 1, 2, 3)


def convolved(padded_BCFHW: Tensor, causal: HunyuanVideoCausalConv3d) -> Tensor:
    """The causal convolution of what is padded in time already; space is padded by zeros."""
    width, _, height, *_ = causal.time_causal_padding
    conv = causal.conv
    return nn.functional.conv3d(padded_BCFHW, conv.weight, conv.bias, conv.stride, (0, height, width))


class FusedResnetBlock(HunyuanVideoResnetBlockCausal3D):
    """The base's block: the same function of the same weights."""

    any_batch = False  # compiled for every batch size at once

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, C, F, H, W] to [B, C', F, H, W]."""
        x = hidden_states
        for norm, causal in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            num_before = causal.time_causal_padding[4]
            settings = (norm.weight, norm.bias, norm.num_groups, norm.eps, num_before)
            x = with_channels_last(norm_silu, x, *settings, any_batch=self.any_batch)
            x = convolved(x, causal)
        shortcut = self.conv_shortcut
        return x + (hidden_states if shortcut is None else shortcut(hidden_states))


class FusedUpsample(HunyuanVideoUpsampleCausal3D):
    """The base's upsampling and convolution."""

    any_batch = False

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, C, F, H, W] to [B, C', 1 + (F - 1) t, H h, W w] by the factors t, h, w."""
        times, high, wide = (int(factor) for factor in self.upsample_factor)
        num_before = self.conv.time_causal_padding[4]
        factors = (times, high, wide)
        x = with_channels_last(nearest, hidden_states, factors, num_before, any_batch=self.any_batch)
        return convolved(x, self.conv)


class NormSilu(SteadyNorm):
    """The norm before the last convolution, SiLU included."""

    any_batch = False

    def forward(self, input: Tensor) -> Tensor:
        """The shape and number format of the input."""
        settings = (self.weight, self.bias, self.num_groups, self.eps, 0)
        return with_channels_last(norm_silu, input, *settings, any_batch=self.any_batch)


def fuse_blocks(vae: GameplayVAE, any_batch: bool = False) -> None:
    """Let an autoencoder compute by these blocks, in place; its weights and their names stay.

    Args:
        vae: the autoencoder.
        any_batch: compile once for all batch sizes, where many come; else for each, which training is quicker by.

    Raises:
        UserError: if it pads space otherwise than by zeros.
    """
    if vae.config.spatial_padding != "zeros":
        raise UserError("model.compile: only for an autoencoder with spatial_padding 'zeros'\nSet one of the two.")
    vae.memory_format = torch.channels_last_3d
    ours = {HunyuanVideoResnetBlockCausal3D: FusedResnetBlock, HunyuanVideoUpsampleCausal3D: FusedUpsample}
    for module in vae.modules():
        module.__class__ = ours.get(type(module), type(module))
    halves: tuple[Any, ...] = (vae.encoder, vae.decoder)
    for half in halves:
        half.conv_norm_out.__class__ = NormSilu
        half.conv_act = nn.Identity()
    for module in vae.modules():
        if isinstance(module, FusedResnetBlock | FusedUpsample | NormSilu):
            module.any_batch = any_batch
