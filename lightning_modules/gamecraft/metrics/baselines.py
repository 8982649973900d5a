"""PSNR and SSIM frame by frame, and the pictures that a prediction has to beat.

Axis legend: B clip, T frame, C channel, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

PSNR_CAP_DB = 60.0  # of equal pictures
COPY_HISTORY, REPLAY_HISTORY, COPY_PREVIOUS, MEAN_IMAGE = (
    "copy the last history frame", "replay the history clip", "copy the real frame before (sees the answer)",
    "mean image of other clips",
)  # fmt: skip


def baselines(real_BTCHW: Tensor, history_BTCHW: Tensor, mean_CHW: Tensor) -> dict[str, Tensor]:
    """What costs no model, as clips like `real_BTCHW` (uint8).

    Args:
        real_BTCHW: the real chunk.
        history_BTCHW: the clip before it; its last frame is one tic before the chunk's first.
        mean_CHW: mean of frames of other maps.

    Returns:
        The last history frame repeated; the history played again; the real frame before each frame, which no honest
        prediction has; and the mean image.
    """
    last_B1CHW, count = history_BTCHW[:, -1:], real_BTCHW.shape[1]
    replay = history_BTCHW[:, -count:]
    if replay.shape[1] < count:
        replay = torch.cat([last_B1CHW.expand(-1, count - replay.shape[1], -1, -1, -1), replay], 1)
    return {
        COPY_HISTORY: last_B1CHW.expand_as(real_BTCHW),
        REPLAY_HISTORY: replay,
        COPY_PREVIOUS: torch.cat([last_B1CHW, real_BTCHW[:, :-1]], 1),
        MEAN_IMAGE: mean_CHW.round().clamp(0, 255).to(torch.uint8).expand_as(real_BTCHW),
    }


class FrameErrors(Metric):
    """Squared error of every frame and structural similarity of some, kept a clip at a time.

    PSNR is that of a clip's mean squared error over a span of frames, at most 60 dB, then the mean over clips.

    Args:
        ssim_stride: similarity of the first frame and every so many after it.
    """

    higher_is_better = True
    full_state_update = False
    mse_BT: list[Tensor]
    ssim_BT: list[Tensor]

    def __init__(self, ssim_stride: int = 4) -> None:
        super().__init__()
        self.ssim_stride = ssim_stride
        self.add_state("mse_BT", [], dist_reduce_fx="cat")
        self.add_state("ssim_BT", [], dist_reduce_fx="cat")

    def update(self, made_BTCHW: Tensor, real_BTCHW: Tensor) -> None:
        """Add clips, uint8 [B, T, 3, H, W] both."""
        a, b = made_BTCHW.float() / 255, real_BTCHW.float() / 255
        self.mse_BT.append((a - b).square().mean((2, 3, 4)))
        a, b = a[:, :: self.ssim_stride], b[:, :: self.ssim_stride]
        similarity = structural_similarity_index_measure(
            a.flatten(0, 1), b.flatten(0, 1), data_range=1.0, reduction="none"
        )
        assert isinstance(similarity, Tensor)
        self.ssim_BT.append(similarity.reshape(a.shape[:2]))

    def psnr_B(self, first: int, last: int) -> Tensor:
        """PSNR in dB [B] over frames `first` to `last`, counted from 1, both included."""
        return _decibels(_whole(self.mse_BT)[:, first - 1 : last].mean(1))

    def ssim_B(self, first: int, last: int) -> Tensor:
        """Structural similarity [B] over those of the same frames that were looked at."""
        looked_at = range(0, _whole(self.mse_BT).shape[1], self.ssim_stride)
        chosen = [i for i, t in enumerate(looked_at) if first - 1 <= t < last]
        return _whole(self.ssim_BT)[:, chosen].mean(1)

    def compute(self) -> dict[str, Tensor]:
        """Mean PSNR and SSIM over all frames and clips."""
        count = _whole(self.mse_BT).shape[1]
        return {"psnr": self.psnr_B(1, count).mean(), "ssim": self.ssim_B(1, count).mean()}


def psnr_B(made_BTCHW: Tensor, real_BTCHW: Tensor) -> Tensor:
    """PSNR in dB [B] of whole clips uint8 [B, T, 3, H, W], at most 60."""
    return _decibels((made_BTCHW.float() - real_BTCHW.float()).div(255).square().mean((1, 2, 3, 4)))


def _decibels(mse: Tensor) -> Tensor:
    return (-10 * mse.clamp_min(1e-12).log10()).clamp_max(PSNR_CAP_DB)


def _whole(kept: list[Tensor] | Tensor) -> Tensor:
    return torch.cat(kept) if isinstance(kept, list) else kept


def mean_and_error(values_B: Tensor, seed: int = 0, rounds: int = 200) -> tuple[float, float]:
    """Mean over starts, and its standard error by bootstrap over them (0 for a single start)."""
    x_B = values_B.detach().double().cpu()
    draws = torch.randint(len(x_B), (rounds, len(x_B)), generator=torch.Generator().manual_seed(seed))
    return float(x_B.mean()), float(x_B[draws].mean(1).std(unbiased=False))
