"""The autoencoder's residual blocks as a GPU likes them: channels last, and norm, SiLU and padding as one operation.

cuDNN's convolutions want channels last, and copy what comes otherwise; torch's group norm gives it back otherwise. So
the norm is written out and compiled, together with what follows it: a sum over the input, then one pass over it.

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
)
from torch import Tensor, nn

from ...registry import UserError
from .training import RECOMPILES
from .vae import GameplayVAE, SteadyNorm


def norm_silu(
    x_BCFHW: Tensor, weight_C: Tensor, bias_C: Tensor, num_groups: int, eps: float, num_before: int
) -> Tensor:
    """SiLU of the group norm, with the first frame `num_before` times more before it; statistics in float32.

    Returns:
        [B, C, F + num_before, H, W] in the input's dtype and memory format.
    """
    x = x_BCFHW.float().unflatten(1, (num_groups, -1))
    variance, mean = torch.var_mean(x, dim=(2, 3, 4, 5), correction=0, keepdim=True)
    x = ((x - mean) * torch.rsqrt(variance + eps)).flatten(1, 2)
    x = x * weight_C.float().view(1, -1, 1, 1, 1) + bias_C.float().view(1, -1, 1, 1, 1)
    made: Tensor = nn.functional.silu(x).to(x_BCFHW.dtype)
    return torch.cat([made[:, :, :1]] * num_before + [made], 2) if num_before else made


@functools.cache
def compiled_norm_silu() -> Callable[..., Tensor]:
    """`norm_silu`, compiled for each shape that comes."""
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, RECOMPILES)
    compiled: Callable[..., Tensor] = torch.compile(norm_silu, dynamic=False)
    return compiled


class FusedResnetBlock(HunyuanVideoResnetBlockCausal3D):
    """The base's block, whose convolutions pad space by zeros; the same function of the same weights."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, C, F, H, W], channels last, to [B, C', F, H, W]."""
        x = convolved(hidden_states, self.norm1, self.conv1)
        x = convolved(x, self.norm2, self.conv2)
        shortcut = self.conv_shortcut
        return x + (hidden_states if shortcut is None else shortcut(hidden_states))


class NormSilu(SteadyNorm):
    """The norm before the last convolution, SiLU included."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape, number format and memory format of the input."""
        return compiled_norm_silu()(input, self.weight, self.bias, self.num_groups, self.eps, 0)


def convolved(x_BCFHW: Tensor, norm: nn.GroupNorm, causal: HunyuanVideoCausalConv3d) -> Tensor:
    """Norm, SiLU and causal convolution."""
    width, _, height, _, before, _ = causal.time_causal_padding
    x = compiled_norm_silu()(x_BCFHW, norm.weight, norm.bias, norm.num_groups, norm.eps, before)
    conv = causal.conv
    return nn.functional.conv3d(x, conv.weight, conv.bias, conv.stride, (0, height, width))


def fuse_blocks(vae: GameplayVAE) -> None:
    """Let an autoencoder compute by these blocks, in place; its weights and their names stay.

    Raises:
        UserError: if it pads space otherwise than by zeros.
    """
    if vae.config.spatial_padding != "zeros":
        raise UserError("model.compile: only for an autoencoder with spatial_padding 'zeros'\nSet one of the two.")
    vae.memory_format = torch.channels_last_3d
    for module in vae.modules():
        if isinstance(module, HunyuanVideoResnetBlockCausal3D):
            module.__class__ = FusedResnetBlock
    halves: tuple[Any, ...] = (vae.encoder, vae.decoder)
    for half in halves:
        half.conv_norm_out.__class__ = NormSilu
        half.conv_act = nn.Identity()
