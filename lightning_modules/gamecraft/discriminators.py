"""Networks that tell real chunks from made ones, and the losses of both sides.

Neither looks through a network from elsewhere: one sees by the frozen teacher, the other learns from pixels.

Axis legend: B batch, C channel, F frame, H height, W width, N token, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

HIDDEN = 64
WIDTHS = (48, 96, 128)


class TokenDiscriminator(nn.Module):
    """Scores of a chunk's tokens by small heads on every block of a frozen transformer (arXiv 2405.18407).

    What the transformer is conditioned on is known to the heads by its tokens.

    Args:
        width: D.
        num_blocks: blocks that are listened to.
    """

    def __init__(self, width: int, num_blocks: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))
            for _ in range(num_blocks)
        )

    def forward(self, taps_BND: Sequence[Tensor]) -> Tensor:
        """[B, N, num_blocks] float32; high where it looks real."""
        return torch.cat([head(x) for head, x in zip(self.heads, taps_BND, strict=True)], 2).float()


class FrameDiscriminator(nn.Module):
    """Scores of patches of a clip by convolutions in space and time, and the maps that lead there.

    Args:
        widths: channels of the layers, each of which halves the picture; multiples of 8.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for inputs, outputs in zip((3, *widths), widths, strict=False):
            conv = nn.Conv3d(inputs, outputs, (3, 4, 4), (1, 2, 2), 1)
            norm = nn.GroupNorm(8, outputs) if inputs > 3 else nn.Identity()
            self.layers.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.last = nn.Conv3d(widths[-1], 1, 3, padding=1)

    def forward(self, clips_BCFHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores [B, 1, F, H / 8, W / 8] float32, high where it looks real, and the maps of every layer."""
        x, maps = clips_BCFHW.contiguous(memory_format=torch.channels_last_3d), []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return self.last(x).float(), maps


def frozen(discriminator: nn.Module, *inputs: Any) -> Any:
    """The discriminator's answer with gradients to its inputs and none to its weights."""
    weights = {name: p.detach() for name, p in discriminator.named_parameters()}
    return functional_call(discriminator, weights, inputs)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss: real scores above 1, made ones below -1."""
    return torch.relu(1 - real).mean() + torch.relu(1 + made).mean()


def map_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean square distance of maps [B, C, ...] whose channels are scaled to unit length at each place."""
    distances = []
    for a, b in zip(made, real, strict=True):
        gap = nn.functional.normalize(a.float(), dim=1) - nn.functional.normalize(b.float(), dim=1)
        distances.append(gap.square().sum(1).mean())
    return torch.stack(distances).mean()


class _Measured(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        rms = gradient.float().square().mean().sqrt()
        return gradient * (weight / (gradient.numel() * (rms + 1e-20))).to(gradient.dtype), None


def measured(x: Tensor, weight: Tensor) -> Tensor:
    """`x`, but the gradient that comes back through here is scaled to `weight` times that of a mean absolute error.

    A mean over n elements of absolute errors has gradients of 1 / n each; what comes back has that root mean square,
    times `weight`. So the share of an adversarial loss does not hang on how steep the discriminator has become.

    Args:
        x: floating, any shape.
        weight: scalar tensor.
    """
    out: Tensor = _Measured.apply(x, weight)
    return out
