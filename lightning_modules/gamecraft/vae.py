"""Causal 3-D VAE for gameplay: diffusers' AutoencoderKLHunyuanVideo with a decoder of its own, smaller width.

Axis legend: B batch, F video frame, C latent channel, T latent frame, H W picture, h w latent picture.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    AutoencoderKLHunyuanVideo,
    HunyuanVideoCausalConv3d,
    HunyuanVideoDecoder3D,
    HunyuanVideoResnetBlockCausal3D,
)
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (pipelines look for this name beside a component)
from torch import Tensor

CLIP_FRAMES = 33
CLIP_LATENTS = 9
_DOWN = ("HunyuanVideoDownBlock3D",) * 4
_UP = ("HunyuanVideoUpBlock3D",) * 4


class CausalConv3d(HunyuanVideoCausalConv3d):
    """The base's causal convolution, its input padded by copies of the edges instead of one kernel.

    The numbers are the same. A padding kernel's gradient adds up atomically, slowly and in any order; a copy's does
    not, and a compiler fuses it.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolution of [B, C, T, H, W]; time is padded before, space on both sides."""
        x = hidden_states
        left, right, top, bottom, before, _ = self.time_causal_padding
        if before:
            x = torch.cat([x[:, :, :1]] * before + [x], 2)
        if top or bottom:
            x = torch.cat([x[..., :1, :]] * top + [x] + [x[..., -1:, :]] * bottom, 3)
        if left or right:
            x = torch.cat([x[..., :1]] * left + [x] + [x[..., -1:]] * right, 4)
        return self.conv(x)


class CausalResnetBlock(HunyuanVideoResnetBlockCausal3D):
    """The base's residual block, which does not force its input's layout in memory."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, C, T, H, W] to [B, C', T, H, W]."""
        x = self.conv1(self.nonlinearity(self.norm1(hidden_states)))
        x = self.conv2(self.nonlinearity(self.norm2(x)))
        return x + (hidden_states if self.conv_shortcut is None else self.conv_shortcut(hidden_states))


_OURS = {HunyuanVideoCausalConv3d: CausalConv3d, HunyuanVideoResnetBlockCausal3D: CausalResnetBlock}


class GameplayVAE(AutoencoderKLHunyuanVideo):
    """AutoencoderKLHunyuanVideo (4x in time, 8x8 in space, 16 channels) at widths that play in real time.

    33 frames give 9 latents and one frame gives one. Clips are encoded one by one, never joined: GroupNorm looks along
    time, so a clip's first latent is not what its first frame alone would give. Deviations from the base: the decoder
    has its own widths; no attention in the middle, whose map grows with the square of the picture; nothing is cut into
    pieces along time.

    Args:
        in_channels, out_channels, latent_channels, down_block_types, up_block_types, layers_per_block, act_fn,
            norm_num_groups, spatial_compression_ratio, temporal_compression_ratio, mid_block_add_attention: the base's.
        block_out_channels: widths of the encoder's four levels.
        decoder_block_out_channels: widths of the decoder's four levels, outermost first; None = the encoder's.
        decoder_layers_per_block: residual blocks a level, less one, in the decoder; None = the encoder's.
        scaling_factor: factor that brings latents to unit variance, after the mean is taken off.
        latents_mean: mean of each latent channel, taken off before the scaling; None = 0.
        latents_std: standard deviation of each latent channel; if given, it takes the place of `scaling_factor`.
    """

    config: Any  # a dictionary with attributes

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 16,
        down_block_types: tuple[str, ...] = _DOWN,
        up_block_types: tuple[str, ...] = _UP,
        block_out_channels: tuple[int, ...] = (32, 64, 64, 64),
        layers_per_block: int = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 8,
        scaling_factor: float = 0.476986,
        spatial_compression_ratio: int = 8,
        temporal_compression_ratio: int = 4,
        mid_block_add_attention: bool = False,
        decoder_block_out_channels: tuple[int, ...] | None = (16, 24, 56, 56),
        decoder_layers_per_block: int | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            latent_channels=latent_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            scaling_factor=scaling_factor,
            spatial_compression_ratio=spatial_compression_ratio,
            temporal_compression_ratio=temporal_compression_ratio,
            mid_block_add_attention=mid_block_add_attention,
        )
        self.decoder = HunyuanVideoDecoder3D(
            in_channels=latent_channels,
            out_channels=out_channels,
            up_block_types=up_block_types,
            block_out_channels=decoder_block_out_channels or block_out_channels,
            layers_per_block=layers_per_block if decoder_layers_per_block is None else decoder_layers_per_block,
            norm_num_groups=norm_num_groups,
            act_fn=act_fn,
            time_compression_ratio=temporal_compression_ratio,
            spatial_compression_ratio=spatial_compression_ratio,
            mid_block_add_attention=mid_block_add_attention,
        )
        for module in self.modules():
            module.__class__ = _OURS.get(type(module), type(module))
        self.use_framewise_encoding = self.use_framewise_decoding = False

    def encode_clips(
        self, frames_BFCHW: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents [B, 16, T, H/8, W/8] of clips, near zero mean and unit variance, in the weights' dtype.

        Args:
            frames_BFCHW: [B, F, 3, H, W], uint8 or floating in -1..1; F is 1 or 1 + a multiple of 4; H and W are
                multiples of 8.
            sample: draw from the posterior instead of taking its mean.
            generator: source of the draw.
        """
        posterior = self.encode(self.as_input(frames_BFCHW)).latent_dist
        latents_BCThw = posterior.sample(generator=generator) if sample else posterior.mode()
        return self.normalise(latents_BCThw)

    def decode_clips(self, latents_BCThw: Tensor) -> Tensor:
        """Frames [B, F, 3, H, W], about -1..1 and not clamped, of latents that `encode_clips` or the DiT made."""
        raw_BCThw = self.denormalise(latents_BCThw.to(self.post_quant_conv.weight.dtype))
        return self.decode(raw_BCThw).sample.transpose(1, 2)

    def as_input(self, frames_BFCHW: Tensor) -> Tensor:
        """Frames as `encode` wants them: [B, 3, F, H, W] in -1..1, in the weights' dtype."""
        pixels = frames_BFCHW.transpose(1, 2)
        dtype = self.quant_conv.weight.dtype
        return pixels.to(dtype) if pixels.is_floating_point() else (pixels.float() / 127.5 - 1).to(dtype)

    def normalise(self, raw_BCThw: Tensor) -> Tensor:
        """Latents as the DiT sees them, from the posterior's own."""
        mean, scale = self._statistics(raw_BCThw)
        return (raw_BCThw - mean) * scale

    def denormalise(self, latents_BCThw: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        mean, scale = self._statistics(latents_BCThw)
        return latents_BCThw / scale + mean

    def set_latent_statistics(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Write each latent channel's mean and standard deviation (of the posterior's own latents) to the config."""
        mean, std = ([round(float(x), 6) for x in values] for values in (mean_C, std_C))
        self.register_to_config(latents_mean=mean, latents_std=std)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and factor, each [1, C, 1, 1, 1] or [1, 1, 1, 1, 1]."""
        mean, std = self.config.latents_mean or [0.0], self.config.latents_std
        scale = [1 / s for s in std] if std else [self.config.scaling_factor]
        return like.new_tensor(mean).view(1, -1, 1, 1, 1), like.new_tensor(scale).view(1, -1, 1, 1, 1)


def to_uint8(frames: Tensor) -> Tensor:
    """Pictures in -1..1 as uint8, clamped and rounded; any shape."""
    return ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
