"""Distance of pictures in the layers of EfficientNet-Lite0: what stands in for LPIPS, which has no offline weights.

Axis legend: N picture, C channel, H height, W width, D embedding, B clip, T frame.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from ....datamodules.sources.download import fetch
from ....datamodules.sources.image_nets import EFFICIENTNET_LITE0, WEIGHTS_FILE
from ....registry import UserError

# expansion, kernel, stride, channels out, one row a block (EfficientNet-Lite0: no squeeze-and-excite, ReLU6)
BLOCKS = (
    (1, 3, 1, 16),
    *((6, 3, 2, 24), (6, 3, 1, 24)),
    *((6, 5, 2, 40), (6, 5, 1, 40)),
    *((6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80)),
    *((6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112)),
    *((6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192)),
    (6, 3, 1, 320),
)
TAPS = (0, 2, 4, 10, 15)  # the last block at each size: a half, a quarter, ... a thirty-second
_BN_EPS = 1e-3


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": what does not divide evenly goes to the right and below."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            reversed(x_NCHW.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return self._conv_forward(F.pad(x_NCHW, pads), self.weight, self.bias)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project. Names are the checkpoint's."""

    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(hidden, eps=_BN_EPS) if expansion > 1 else None
        self._depthwise_conv = _SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=_BN_EPS)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BN_EPS)
        self._skip = stride == 1 and inputs == outputs

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = x_NCHW
        if self._expand_conv is not None and self._bn0 is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x_NCHW + y if self._skip else y


class EfficientNetLite0(nn.Module):
    """The trunk of EfficientNet-Lite0 (arXiv 1905.11946's scaling; 13 MB), written anew for its published weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_BN_EPS)
        inputs = (32, *(b[3] for b in BLOCKS))
        self._blocks = nn.ModuleList(_Block(i, *b) for i, b in zip(inputs, BLOCKS, strict=False))
        self._conv_head = nn.Conv2d(BLOCKS[-1][3], 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_BN_EPS)

    @classmethod
    def pretrained(cls, folder: Path | None = None) -> EfficientNetLite0:
        """With the published weights, in eval mode; `folder` None = from the cache, fetched if it lacks them.

        Raises:
            UserError: if they can't be had or are damaged.
        """
        file = (folder or fetch(EFFICIENTNET_LITE0)) / WEIGHTS_FILE
        try:
            net = cls()
            missing, unexpected = net.load_state_dict(load_file(file), strict=False)
        except Exception as error:  # safetensors' and torch's own error types
            raise UserError(f"{file}: not the weights of EfficientNet-Lite0: {error}") from None
        wrong = [k for k in missing if not k.endswith("num_batches_tracked")] + list(unexpected)
        if wrong:
            raise UserError(f"{file}: not the weights of EfficientNet-Lite0: {', '.join(wrong[:3])}")
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 2.6 times as fast on a CPU
        return net.eval().requires_grad_(False)

    def maps(self, pictures_NCHW: Tensor) -> list[Tensor]:
        """Feature maps after the blocks in `TAPS` of pictures uint8 [N, 3, H, W]."""
        x = (pictures_NCHW.to(self._conv_stem.weight.dtype) - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x.contiguous(memory_format=torch.channels_last))))
        found = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in TAPS:
                found.append(x)
        return found

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Pooled features [N, 1280] of pictures uint8 [N, 3, H, W]: what its classifier saw."""
        x = F.relu6(self._bn1(self._conv_head(self.maps(pictures_NCHW)[-1])))
        return x.mean((2, 3))

    def embed(self, pictures_NCHW: Tensor) -> Tensor:
        """Vectors [N, D] whose squared Euclidean distance is the feature distance of the pictures, 0 to 4.

        As in LPIPS, each layer's channels are scaled to unit length at each place; distances are means over places and
        over the five layers, all of equal weight. LPIPS's learned weights are not applied: it is not calibrated.
        """
        parts = []
        for x in self.maps(pictures_NCHW):
            unit = F.normalize(x.float(), dim=1)
            parts.append(unit.flatten(1) / (len(TAPS) * unit[0, 0].numel()) ** 0.5)
        return torch.cat(parts, 1)


class FeatureDistance(Metric):
    """Mean feature distance of clips, frame by frame, kept a clip at a time for its spread.

    Args:
        net: the network; not a part of the metric's state.
        frame_stride: every how many frames one is looked at; the last frame of a span always counts.
    """

    higher_is_better = False
    full_state_update = False
    distance_B: list[Tensor]

    def __init__(self, net: EfficientNetLite0, frame_stride: int = 4) -> None:
        super().__init__()
        self.embed = net.embed  # a function, so that the metric does not own the network's weights
        self.frame_stride = frame_stride
        self.add_state("distance_B", [], dist_reduce_fx="cat")

    def update(self, made_BTCHW: Tensor, real_BTCHW: Tensor) -> None:
        """Add clips, uint8 [B, T, 3, H, W] both."""
        a, b = (clip_embedding(self.embed, x, self.frame_stride) for x in (made_BTCHW, real_BTCHW))
        self.distance_B.append((a - b).square().sum(1))

    def per_clip(self) -> Tensor:
        """Distance of each clip, [B]."""
        kept = self.distance_B
        return torch.cat(kept) if isinstance(kept, list) else kept

    def compute(self) -> Tensor:
        """Mean over clips."""
        return self.per_clip().mean()


@torch.no_grad()
def clip_embedding(
    embed: Callable[[Tensor], Tensor], clips_BTCHW: Tensor, frame_stride: int, batch_size: int = 64
) -> Tensor:
    """Vectors [B, D] whose squared distance is the mean feature distance of the clips' frames, one in `frame_stride`.

    Args:
        embed: pictures uint8 [N, 3, H, W] to [N, D], such as `EfficientNetLite0.embed`.
        clips_BTCHW: uint8 [B, T, 3, H, W].
        frame_stride: 1 = all frames; counted back from the last.
        batch_size: pictures at a time.
    """
    chosen_T = torch.arange(clips_BTCHW.shape[1] - 1, -1, -frame_stride).flip(0)
    pictures = clips_BTCHW[:, chosen_T.to(clips_BTCHW.device)]
    vectors = torch.cat([embed(part) for part in pictures.flatten(0, 1).split(batch_size)])
    return vectors.unflatten(0, pictures.shape[:2]).flatten(1) / len(chosen_T) ** 0.5
