"""Fréchet video distance over clip features, its floor, and a ladder of corruptions that has to raise it.

Axis legend: N clip, D feature, B batch, T frame, C channel, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchmetrics import Metric

from ....registry import UserError

LADDER: dict[str, tuple[float, ...]] = {
    "noise": (5.0, 15.0, 40.0),
    "shuffle": (0.1, 0.4, 1.0),
    "freeze": (0.3, 0.6, 1.0),
}


class FrechetVideoDistance(Metric):
    """Distance of two Gaussians fitted to clip features (arXiv 1706.08500's, over an inverse-dynamics network's).

    Called FVD-IDM with N and the number of dimensions beside it, never FVD: the features are not I3D's. It is biased
    upwards at small N, so it is compared at equal N only, beside the distance of two halves of real clips.

    Args:
        dim: number of features of a clip.
    """

    higher_is_better = False
    full_state_update = False
    real_sum_D: Tensor
    made_sum_D: Tensor
    real_outer_DD: Tensor
    made_outer_DD: Tensor
    real_count: Tensor
    made_count: Tensor

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.dim = dim
        for kind in ("real", "made"):
            self.add_state(f"{kind}_sum_D", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer_DD", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features_ND: Tensor, real: bool) -> None:
        """Add clips: features [N, D], of real clips or of made ones."""
        x_ND, kind = features_ND.double(), "real" if real else "made"
        getattr(self, f"{kind}_sum_D").add_(x_ND.sum(0))
        getattr(self, f"{kind}_outer_DD").add_(x_ND.T @ x_ND)
        getattr(self, f"{kind}_count").add_(len(x_ND))

    def compute(self) -> Tensor:
        """The distance, float64 scalar.

        Raises:
            UserError: if either side has fewer clips than twice the dimensions: the covariances would be noise.
        """
        smaller = int(min(self.real_count, self.made_count))
        if smaller < 2 * self.dim:
            raise UserError(
                f"a Fréchet distance in {self.dim} dimensions needs {2 * self.dim} clips a side, there are {smaller}\n"
                "Take more clips, or fewer dimensions (`leading_directions`)."
            )
        (mean_a, cov_a), (mean_b, cov_b) = (
            _moments(*(getattr(self, f"{kind}_{part}") for part in ("sum_D", "outer_DD", "count")))
            for kind in ("real", "made")
        )
        values, vectors = torch.linalg.eigh(cov_a)
        root_DD = vectors * values.clamp_min(0).sqrt() @ vectors.T
        cross = torch.linalg.eigvalsh(root_DD @ cov_b @ root_DD).clamp_min(0).sqrt().sum()
        return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).clamp_min(0)


def _moments(sum_D: Tensor, outer_DD: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    mean_D = sum_D / count
    return mean_D, (outer_DD - count * torch.outer(mean_D, mean_D)) / (count - 1)


class Directions:
    """The leading principal directions of real features, each scaled to unit variance: how many N clips can bear.

    Attributes:
        dim: number of directions: as many as the features have, or half the clips where those are fewer.
    """

    def __init__(self, real_ND: Tensor, num_clips: int) -> None:
        x_ND = real_ND.double()
        self._mean_D = x_ND.mean(0)
        _, scales, directions_DD = torch.linalg.svd(x_ND - self._mean_D, full_matrices=False)
        spread = scales / max(1, len(x_ND) - 1) ** 0.5
        alive = int((spread > 1e-4 * spread[0]).sum()) if len(spread) else 0
        self.dim = max(1, min(alive, num_clips // 2))
        self._directions_DK = (directions_DD[: self.dim] / spread[: self.dim, None]).T

    def __call__(self, features_ND: Tensor) -> Tensor:
        """Features [N, D] in these directions, float64 [N, dim]."""
        return (features_ND.double() - self._mean_D) @ self._directions_DK


def distance(real_ND: Tensor, made_ND: Tensor) -> float:
    """Fréchet distance of two sets of features.

    Raises:
        UserError: if there are fewer clips than twice the dimensions.
    """
    metric = FrechetVideoDistance(real_ND.shape[1]).to(real_ND.device)
    metric.update(real_ND, real=True)
    metric.update(made_ND, real=False)
    return float(metric.compute())


def corrupt(clips_BTCHW: Tensor, kind: str, level: float, seed: int) -> Tensor:
    """Real clips made worse.

    Args:
        clips_BTCHW: uint8 [B, T, 3, H, W].
        kind: `noise` (level: standard deviation in grey levels), `shuffle` (level: share of the frames that change
            places) or `freeze` (level: share of the frames, at the end, that repeat the one before them).
        level: 0 leaves the clips as they are.
        seed: of the noise and the order.
    """
    generator = torch.Generator().manual_seed(seed)
    count = clips_BTCHW.shape[1]
    if kind == "noise":
        noise = torch.randn(clips_BTCHW.shape, generator=generator).to(clips_BTCHW.device)
        return (clips_BTCHW.float() + level * noise).round().clamp(0, 255).to(torch.uint8)
    if kind == "freeze":
        return clips_BTCHW[:, torch.arange(count).clamp_max(max(0, count - 1 - round(level * count)))]
    if kind != "shuffle":
        raise ValueError(f"no corruption named {kind}")
    num_moved = max(2, round(level * count)) if level else 0
    made = clips_BTCHW.clone()
    for clip_TCHW, real_TCHW in zip(made, clips_BTCHW, strict=True):
        moved = torch.randperm(count, generator=generator)[:num_moved].to(clips_BTCHW.device)
        clip_TCHW[moved] = real_TCHW[moved.roll(1)]
    return made


def corruption_ladder(
    real_clips_NTCHW: Tensor, features: Callable[[Tensor], Tensor], directions: Directions, seed: int = 0
) -> dict[str, list[tuple[float, float]]]:
    """Distance of real clips to themselves, corrupted more and more.

    Args:
        real_clips_NTCHW: uint8 [N, T, 3, H, W].
        features: clips to features [N, D].
        directions: of the real features.
        seed: of the corruptions.

    Returns:
        Kind -> (level, distance) in rising level, level 0 first.
    """
    real_NK = directions(features(real_clips_NTCHW))
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, levels in LADDER.items():
        found[kind] = [(0.0, distance(real_NK, real_NK))]
        for level in levels:
            made_NK = directions(features(corrupt(real_clips_NTCHW, kind, level, seed)))
            found[kind].append((level, distance(real_NK, made_NK)))
    return found


def is_monotone(ladder: dict[str, list[tuple[float, float]]]) -> bool:
    """Whether every corruption's distance rises with its level."""
    return all(_rises([d for _, d in steps]) for steps in ladder.values())


def _rises(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))
