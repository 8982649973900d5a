"""Optical flow (OpenCV's DIS): how much moves, how well each frame follows from the one before, and at the seams.

Axis legend: B clip, T frame, P pair of neighbouring frames, H height, W width, C channel.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy
import torch
from torch import Tensor
from torchmetrics import Metric

_own = threading.local()  # a DIS object keeps buffers, so each thread has one


@dataclass(frozen=True)
class PairFlow:
    """What the flow between neighbouring frames of clips says; all [B, P] float32, grey levels in 0..255.

    Attributes:
        magnitude: mean length of the flow in pixels.
        right: mean of its horizontal part.
        down: mean of its vertical part.
        warp_error: mean absolute difference of a frame to the next one carried back along the flow, where it lands
            inside the picture.
        still_error: the same without carrying back.
    """

    magnitude: Tensor
    right: Tensor
    down: Tensor
    warp_error: Tensor
    still_error: Tensor

    @property
    def consistency(self) -> Tensor:
        """1 - warp_error / 255, [B, P]."""
        return 1 - self.warp_error / 255


def pair_flow(clips_BTCHW: Tensor, stride: int = 1) -> PairFlow:
    """Flow between frames t and t + 1 of every clip, on all cores.

    Args:
        clips_BTCHW: uint8 [B, T, 3, H, W].
        stride: look at one pair in so many.
    """
    frames_BTHWC = clips_BTCHW.permute(0, 1, 3, 4, 2).cpu().numpy()
    starts = range(0, frames_BTHWC.shape[1] - 1, stride)
    work = [(clip[t], clip[t + 1]) for clip in frames_BTHWC for t in starts]
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pairs themselves are dealt out to threads
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            found = numpy.array(list(pool.map(_one_pair, work)), numpy.float32)
    finally:
        cv2.setNumThreads(before)
    columns = torch.from_numpy(found).reshape(len(frames_BTHWC), len(starts), 5).unbind(2)
    return PairFlow(*columns)


def _one_pair(pair: tuple[numpy.ndarray, numpy.ndarray]) -> tuple[float, ...]:
    earlier, later = pair
    if not hasattr(_own, "dis"):
        _own.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    grey = [numpy.ascontiguousarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)) for x in (earlier, later)]
    flow_HW2 = _own.dis.calc(*grey, None)
    height, width = grey[0].shape
    columns_HW, rows_HW = numpy.meshgrid(
        numpy.arange(width, dtype=numpy.float32), numpy.arange(height, dtype=numpy.float32)
    )
    x_HW, y_HW = columns_HW + flow_HW2[..., 0], rows_HW + flow_HW2[..., 1]
    carried = cv2.remap(later, x_HW, y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x_HW >= 0) & (x_HW <= width - 1) & (y_HW >= 0) & (y_HW <= height - 1)
    difference = numpy.abs(carried.astype(numpy.float32) - earlier)[inside]
    return (
        float(numpy.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).mean()),
        float(flow_HW2[..., 0].mean()),
        float(flow_HW2[..., 1].mean()),
        float(difference.mean()) if difference.size else 0.0,
        float(numpy.abs(later.astype(numpy.float32) - earlier).mean()),
    )


class VideoDynamics(Metric):
    """Dynamic average (mean flow in pixels a frame) and temporal consistency, inside chunks and at their seams.

    Dynamic average is VBench's dynamic degree without its threshold (arXiv 2506.17201, section 5.1); consistency is
    1 - warp error / 255. A still picture is perfectly consistent, so the two belong side by side.

    Args:
        stride: look at one pair of frames in so many; seams are always looked at.
    """

    full_state_update = False
    dynamics_B: list[Tensor]
    consistency_B: list[Tensor]
    seam_B: list[Tensor]

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        self.stride = stride
        for name in ("dynamics_B", "consistency_B", "seam_B"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, clips_BTCHW: Tensor, history_BTCHW: Tensor) -> None:
        """Add chunks uint8 [B, T, 3, H, W] and what came before them (its last frame meets the chunk's first)."""
        inside = pair_flow(clips_BTCHW, self.stride)
        self.dynamics_B.append(inside.magnitude.mean(1))
        self.consistency_B.append(inside.consistency.mean(1))
        seam = pair_flow(torch.cat([history_BTCHW[:, -1:].cpu(), clips_BTCHW[:, :1].cpu()], 1))
        self.seam_B.append(seam.consistency.mean(1))

    def per_clip(self) -> dict[str, Tensor]:
        """Each measure as [B]: `dynamics` in pixels a frame, `consistency`, `seam`."""
        kept = {"dynamics": self.dynamics_B, "consistency": self.consistency_B, "seam": self.seam_B}
        return {k: torch.cat(v) if isinstance(v, list) else v for k, v in kept.items()}

    def compute(self) -> dict[str, Tensor]:
        """Means over clips."""
        return {k: v.mean() for k, v in self.per_clip().items()}


def correlation(commanded_N: Tensor, measured_N: Tensor) -> float:
    """Pearson correlation; 0 where one side does not vary."""
    a, b = commanded_N.double() - commanded_N.double().mean(), measured_N.double() - measured_N.double().mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def is_rising(values: Tensor) -> bool:
    """Whether each value is larger than the one before."""
    return bool((values[1:] > values[:-1]).all())
