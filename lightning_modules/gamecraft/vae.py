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
)
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (pipelines look for this name beside a component)
from torch import Tensor

from ..eight_bits import EightBitWeights

CLIP_FRAMES = 33
CLIP_LATENTS = 9
_LIGHT = {"patch_size": 2, "spatial_padding": "zeros"}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {**_LIGHT, "block_out_channels": (24, 48, 64), "decoder_block_out_channels": (24, 32, 64)},
    "student": {**_LIGHT, "block_out_channels": (48, 96, 96), "decoder_block_out_channels": (32, 48, 96)},
}
"""Widths for thumbnails, and those of the model that plays in real time; arguments of `GameplayVAE`."""


class CausalConv3d(HunyuanVideoCausalConv3d):
    """The base's causal convolution; space may be padded by the convolution itself, with zeros.

    That saves two copies of the input a layer, and their gradients. Copies of the edges are slices, whose gradients add
    up in one order, where those of the base's padding do not.
    """

    spatial_padding = "replicate"

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolution of [B, C, T, H, W]; time is padded before, with the first frame."""
        x, conv = hidden_states, self.conv
        width, _, height, _, before, _ = self.time_causal_padding
        if before:
            x = torch.cat([x[:, :, :1]] * before + [x], 2)
        if self.spatial_padding == "zeros":
            return torch.nn.functional.conv3d(x, conv.weight, conv.bias, conv.stride, (0, height, width))
        if height:
            x = torch.cat([x[..., :1, :]] * height + [x] + [x[..., -1:, :]] * height, 3)
        if width:
            x = torch.cat([x[..., :1]] * width + [x] + [x[..., -1:]] * width, 4)
        return conv(x)


class SteadyNorm(torch.nn.GroupNorm):
    """GroupNorm that keeps its input's number format; its statistics are float32 all the same.

    Autocast, which does not know the operator beneath, would have activations written in float32 and cast back.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape and number format of the input."""
        size, channels = input.shape[:2]
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        cells = input[0, 0].numel()  # of one channel
        return torch.native_group_norm(input, weight, bias, size, channels, cells, self.num_groups, self.eps)[0]


_OURS = {HunyuanVideoCausalConv3d: CausalConv3d, torch.nn.GroupNorm: SteadyNorm}


class GameplayVAE(EightBitWeights, AutoencoderKLHunyuanVideo):  # type: ignore[misc]
    """AutoencoderKLHunyuanVideo (4x in time, 8x8 in space, 16 channels) at widths that play in real time.

    33 frames give 9 latents and one frame gives one. Clips are encoded one by one, never joined: GroupNorm looks along
    time, so a clip's first latent is not what its first frame alone would give. Deviations from the base: the decoder
    has its own widths; no attention in the middle, whose map grows with the square of the picture; nothing is cut into
    pieces along time.

    With `patch_size` p, squares of p x p pixels enter as channels and leave as such, and the network itself makes up
    the rest of the compression (as Wan 2.2's and LTX-Video's autoencoders do): the full picture, where most of the time
    went and little was learned, needs no layer of its own.

    Args:
        in_channels, out_channels, latent_channels, layers_per_block, act_fn, norm_num_groups,
            spatial_compression_ratio, temporal_compression_ratio, mid_block_add_attention: the base's.
        down_block_types, up_block_types: the base's; None = its only kind, one for each width.
        block_out_channels: widths of the encoder's levels, outermost first.
        decoder_block_out_channels: widths of the decoder's levels, outermost first; None = the encoder's.
        spatial_padding: `replicate`, as the base pads, or `zeros`.
        patch_size: side p of the squares of pixels that enter as channels; 1 = none, as the base has it.
        decoder_layers_per_block: residual blocks a level, less one, in the decoder; None = the encoder's.
        scaling_factor: factor that brings latents to unit variance, after the mean is taken off.
        latents_mean: mean of each latent channel, taken off before the scaling; None = 0.
        latents_std: standard deviation of each latent channel; if given, it takes the place of `scaling_factor`.
    """

    config: Any  # a dictionary with attributes
    memory_format = torch.contiguous_format  # of the activations

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 16,
        down_block_types: tuple[str, ...] | None = None,
        up_block_types: tuple[str, ...] | None = None,
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
        patch_size: int = 1,
        spatial_padding: str = "replicate",
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
    ) -> None:
        down_block_types = down_block_types or ("HunyuanVideoDownBlock3D",) * len(block_out_channels)
        up_block_types = up_block_types or ("HunyuanVideoUpBlock3D",) * len(block_out_channels)
        super().__init__(
            in_channels=in_channels * patch_size**2,
            out_channels=out_channels * patch_size**2,
            latent_channels=latent_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            scaling_factor=scaling_factor,
            spatial_compression_ratio=spatial_compression_ratio // patch_size,
            temporal_compression_ratio=temporal_compression_ratio,
            mid_block_add_attention=mid_block_add_attention,
        )
        # the base has just noted what it was given
        outward = {"in_channels": in_channels, "out_channels": out_channels}
        self.register_to_config(**outward, spatial_compression_ratio=spatial_compression_ratio)
        self.decoder = HunyuanVideoDecoder3D(
            in_channels=latent_channels,
            out_channels=out_channels * patch_size**2,
            up_block_types=up_block_types,
            block_out_channels=decoder_block_out_channels or block_out_channels,
            layers_per_block=layers_per_block if decoder_layers_per_block is None else decoder_layers_per_block,
            norm_num_groups=norm_num_groups,
            act_fn=act_fn,
            time_compression_ratio=temporal_compression_ratio,
            spatial_compression_ratio=spatial_compression_ratio // patch_size,
            mid_block_add_attention=mid_block_add_attention,
        )
        for module in self.modules():
            module.__class__ = _OURS.get(type(module), type(module))
            if isinstance(module, CausalConv3d):
                module.spatial_padding = spatial_padding
        self.use_framewise_encoding = self.use_framewise_decoding = False

    def _encode(self, x: Tensor) -> Tensor:
        """Moments of pictures [B, C, F, H, W]."""
        p = self.config.patch_size
        x = x if p == 1 else patches(x, p)
        moments: Tensor = super()._encode(x.contiguous(memory_format=self.memory_format))
        return moments

    def _decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """Pictures of latents, by the base's convention."""
        z, p = z.contiguous(memory_format=self.memory_format), self.config.patch_size
        (frames,) = super()._decode(z, return_dict=False)
        frames = frames if p == 1 else pictures(frames, p)
        return DecoderOutput(sample=frames) if return_dict else (frames,)

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

    def latent_shape(self, x_BCFHW: Tensor) -> tuple[int, int, int, int, int]:
        """Shape of the latents of pictures [B, C, F, H, W]."""
        size, _, frames, height, width = x_BCFHW.shape
        times, side = self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
        return size, self.config.latent_channels, (frames - 1) // times + 1, height // side, width // side

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
        return _constant(like, mean).view(1, -1, 1, 1, 1), _constant(like, scale).view(1, -1, 1, 1, 1)


def _constant(like: Tensor, values: list[float]) -> Tensor:
    """Numbers as a tensor beside another. A CUDA graph can't hold a copy from ordinary memory; it can hold fills."""
    if like.is_cuda and torch.cuda.is_current_stream_capturing():
        return torch.cat([like.new_full((1,), value) for value in values])
    return like.new_tensor(values)


def patches(x_BCFHW: Tensor, p: int) -> Tensor:
    """[B, C, F, H, W] to [B, C p p, F, H / p, W / p]."""
    b, c, f, h, w = x_BCFHW.shape
    return x_BCFHW.view(b, c, f, h // p, p, w // p, p).permute(0, 1, 4, 6, 2, 3, 5).reshape(b, -1, f, h // p, w // p)


def pictures(x_BPFHW: Tensor, p: int) -> Tensor:
    """The inverse of `patches`."""
    b, c, f, h, w = x_BPFHW.shape
    return x_BPFHW.view(b, c // p**2, p, p, f, h, w).permute(0, 1, 4, 5, 2, 6, 3).reshape(b, -1, f, h * p, w * p)


def to_uint8(frames: Tensor) -> Tensor:
    """Pictures in -1..1 as uint8, clamped and rounded; any shape."""
    return ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
