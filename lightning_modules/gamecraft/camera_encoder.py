"""The camera as tokens: Plücker rays of 33 frames brought to the DiT's grid (arXiv 2506.17201, section 4.2).

Axis legend: B batch, F video frame, T latent frame, C channel, H W picture, h w latent picture, N token, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNSHUFFLE = 8


class CameraEncoder(nn.Module):
    """Few 1x1 convolutions for space, pooling for time, a zero-initialised end and a learnable scale.

    Unshuffle by 8 (6 -> 384 channels), 1x1 to 192, GroupNorm(2), ReLU, pool time 33 -> 17, 1x1 to 96, GroupNorm(2),
    ReLU, pool 17 -> 9, zero-initialised 1x1 to 16, a patch embedding of its own, a scale of 1. At the start every token
    is exactly zero. 294,257 parameters at width 3072.

    Args:
        width: D, the DiT's width.
        patch_size: the DiT's patch side in latent pixels.
        as_channels: stop at the 16 feature channels (for channel concatenation) and make no tokens.
    """

    def __init__(self, width: int, patch_size: int = 2, *, as_channels: bool = False) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(6 * UNSHUFFLE**2, 192, 1)
        self.norm_in = nn.GroupNorm(2, 192)
        self.conv_mid = nn.Conv2d(192, 96, 1)
        self.norm_mid = nn.GroupNorm(2, 96)
        self.conv_out = nn.Conv2d(96, 16, 1)
        side = (1, patch_size, patch_size)
        self.patch_embed = None if as_channels else nn.Conv3d(16, width, side, stride=side)
        self.scale = nn.Parameter(torch.ones(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of the first two convolutions, zeros at the end."""
        for conv in (self.conv_in, self.conv_mid):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        if self.patch_embed is not None:
            nn.init.zeros_(self.patch_embed.bias)  # type: ignore[arg-type]

    def forward(self, plucker_BFCHW: Tensor) -> Tensor:
        """Tokens [B, N, D] (or features [B, 16, T, h, w]) of rays.

        Args:
            plucker_BFCHW: (moment, unit direction) [B, F, 6, H, W], floating; H and W multiples of 16; 33 frames give
                9 latent frames, 4 give one.
        """
        batch, frames = plucker_BFCHW.shape[:2]
        rays = F.pixel_unshuffle(plucker_BFCHW.flatten(0, 1).to(self.conv_in.weight.dtype), UNSHUFFLE)
        x = torch.relu(self.norm_in(self.conv_in(rays)))
        x_BFChw = pool_pairs(x.unflatten(0, (batch, frames)))
        x = torch.relu(self.norm_mid(self.conv_mid(x_BFChw.flatten(0, 1))))
        x_BTChw = pool_pairs(x.unflatten(0, (batch, -1)))
        features_BCThw = self.conv_out(x_BTChw.flatten(0, 1)).unflatten(0, (batch, -1)).transpose(1, 2)
        if self.patch_embed is None:
            return features_BCThw * self.scale
        return self.patch_embed(features_BCThw).flatten(2).transpose(1, 2) * self.scale

    def history(self, plucker_BFCHW: Tensor, num_latents: int) -> Tensor:
        """The response to rays that are all zero, for `num_latents` latent frames of the same picture size.

        Such rays are alike in every pixel and frame, convolutions are 1x1, the norms look at one frame, and pooling
        averages: so the response to four zero frames of one patch, widened, is the response to 33 zero frames (9
        latents), to 4 (one latent), and to several clips pooled apart.
        """
        batch, _, _, height, width = plucker_BFCHW.shape
        one = self(plucker_BFCHW.new_zeros(1, 4, 6, 2 * UNSHUFFLE, 2 * UNSHUFFLE))
        if self.patch_embed is None:
            spread = one[..., :1, :1]
            return spread.expand(batch, -1, num_latents, height // UNSHUFFLE, width // UNSHUFFLE)
        side = UNSHUFFLE * self.patch_embed.kernel_size[1]
        return one.expand(batch, num_latents * (height // side) * (width // side), -1)


def pool_pairs(x_BFChw: Tensor) -> Tensor:
    """Halve the frames by averaging neighbours; an odd number keeps the first frame as it is (33 -> 17 -> 9)."""
    odd = x_BFChw.shape[1] % 2
    pairs = x_BFChw[:, odd:].unflatten(1, (-1, 2)).mean(2)
    return torch.cat([x_BFChw[:, :1], pairs], 1) if odd else pairs
