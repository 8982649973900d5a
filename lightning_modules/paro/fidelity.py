"""How far films under a plan are from dense ones: picture, control of twelve actions, and distance of distributions.

Axis legend: S start (or single picture), A action, N film (S * A), T frame, C colour, H W picture, D feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...datamodules.gamecraft.actions import COUNTERFACTUAL_CHORDS
from ..gamecraft.evaluation.chunks import Request
from ..gamecraft.evaluation.held_out import Start
from ..gamecraft.inverse_dynamics import InverseDynamicsNet
from ..gamecraft.metrics.baselines import FrameErrors
from ..gamecraft.metrics.counterfactual import CounterfactualAccuracy, squared_distances
from ..gamecraft.metrics.frechet import Directions, distance
from ..gamecraft.motion import binned, frame_motion, in_full_speeds

NUM_ACTIONS = len(COUNTERFACTUAL_CHORDS)
AT_ONCE = 12  # films compared at a time
ROUNDS = 2000


@dataclass(frozen=True)
class Fidelity:
    """What was measured of one setting's films; means over the twelve films of a start where it says S.

    Attributes:
        psnr_S: dB against the dense films, 60 where equal.
        ssim_S: structural similarity to them.
        accuracy_S: share of the films recognised as their own action, by inverse dynamics; empty for single pictures.
        frechet_dense: Fréchet distance to the dense films, over features of inverse dynamics; None for single pictures.
            Small already where both share their noise.
        frechet_real: to the real answers.
    """

    psnr_S: tuple[float, ...]
    ssim_S: tuple[float, ...]
    accuracy_S: tuple[float, ...] = ()
    frechet_dense: float | None = None
    frechet_real: float | None = None

    def __str__(self) -> str:
        """Its means, for people."""
        psnr, ssim = (sum(x) / len(x) for x in (self.psnr_S, self.ssim_S))
        text = f"{psnr:.2f} dB, SSIM {ssim:.3f}"
        if not self.accuracy_S:
            return text
        right = sum(self.accuracy_S) / len(self.accuracy_S)
        return (
            f"{text}, actions {right:.1%}, FVD-IDM {self.frechet_dense:.3g} to dense, {self.frechet_real:.3g} to real"
        )

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Fidelity:
        """What `as_json` gave."""
        given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in content.items()}
        return cls(**given)


def request_of(starts: Sequence[Start], seed: int) -> Request:
    """All twelve actions from every start; the films of a start share their noise, a function of seed and start."""
    chords = list(COUNTERFACTUAL_CHORDS)
    return Request.joined([start.request(chords, seed * 1_000_003 + n) for n, start in enumerate(starts)])


class FilmJudge:
    """Compares films with the dense ones and with what the engine truly answered.

    Args:
        starts: their real answers.
        dense_NTCHW: the dense films uint8, in the order of `request_of`.
        idm: inverse dynamics, on the device that compares.
    """

    def __init__(self, starts: Sequence[Start], dense_NTCHW: Tensor, idm: InverseDynamicsNet) -> None:
        self._idm, self._dense = idm, dense_NTCHW
        self._device = next(idm.parameters()).device
        height = dense_NTCHW.shape[-2]
        self._motion_SAX = [
            binned(in_full_speeds(frame_motion(s.intrinsics_AT33, s.c2w_AT44, height))).flatten(1) for s in starts
        ]
        real_ND = torch.cat([idm.measure(s.answers_ATCHW)[1] for s in starts])
        dense_ND = idm.measure(dense_NTCHW)[1]
        self._towards = {"real": Directions(real_ND, len(real_ND)), "dense": Directions(dense_ND, len(dense_ND))}
        self._there = {"real": self._towards["real"](real_ND), "dense": self._towards["dense"](dense_ND)}

    def __call__(self, made_NTCHW: Tensor) -> Fidelity:
        """Measure films uint8, in the same order."""
        psnr_N, ssim_N = _errors(made_NTCHW, self._dense, self._device)
        motion_NPM, features_ND = self._idm.measure(made_NTCHW)
        accuracy = CounterfactualAccuracy(NUM_ACTIONS)
        seen_NX = binned(in_full_speeds(motion_NPM)).flatten(1)
        for seen_AX, true_AX in zip(seen_NX.split(NUM_ACTIONS), self._motion_SAX, strict=True):
            accuracy.update(squared_distances(seen_AX, true_AX))
        found = {name: distance(there, self._towards[name](features_ND)) for name, there in self._there.items()}
        return Fidelity(
            _by_start(psnr_N), _by_start(ssim_N), tuple(accuracy.per_start().tolist()), found["dense"], found["real"]
        )


class PictureJudge:
    """Compares single pictures with the dense ones.

    Args:
        dense_N1CHW: the dense pictures uint8.
        device: that compares.
    """

    def __init__(self, dense_N1CHW: Tensor, device: torch.device) -> None:
        self._dense, self._device = dense_N1CHW, device

    def __call__(self, made_N1CHW: Tensor) -> Fidelity:
        """Measure pictures uint8, in the same order."""
        psnr_N, ssim_N = _errors(made_N1CHW, self._dense, self._device)
        return Fidelity(tuple(psnr_N.tolist()), tuple(ssim_N.tolist()))


def mean_and_interval(values_S: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean over starts, and the middle 95 % of it by bootstrap over them."""
    x_S = torch.tensor(values_S, dtype=torch.float64)
    draws = torch.randint(len(x_S), (ROUNDS, len(x_S)), generator=torch.Generator().manual_seed(seed))
    low, high = x_S[draws].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(x_S.mean()), low, high


def _errors(made_NTCHW: Tensor, dense_NTCHW: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """PSNR in dB and structural similarity of each film [N], on the CPU."""
    errors = FrameErrors()
    for made, dense in zip(made_NTCHW.split(AT_ONCE), dense_NTCHW.split(AT_ONCE), strict=True):
        errors.update(made.to(device), dense.to(device))
    num_frames = made_NTCHW.shape[1]
    return errors.psnr_B(1, num_frames).cpu(), errors.ssim_B(1, num_frames).cpu()


def _by_start(values_N: Tensor) -> tuple[float, ...]:
    return tuple(values_N.double().unflatten(0, (-1, NUM_ACTIONS)).mean(1).tolist())
