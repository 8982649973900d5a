"""The judges of generated chunks: inverse dynamics, feature distance and optical flow, with what each found per start.

Axis legend: S start, A action, T frame, P pair of frames, M motion axis, D feature, C channel, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....datamodules.gamecraft.actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS
from ..inverse_dynamics import InverseDynamicsNet
from ..metrics.baselines import psnr_B
from ..metrics.counterfactual import CounterfactualAccuracy, squared_distances
from ..metrics.flow_metrics import VideoDynamics
from ..metrics.perceptual import EfficientNetLite0, clip_embedding
from ..motion import binned, frame_motion, in_full_speeds
from .held_out import Start
from .prediction import luminance


@dataclass
class Judges:
    """The two networks, and how closely they look.

    Attributes:
        idm: inverse dynamics, on the device.
        net: for feature distances, on the device; None leaves that judge out.
        frame_stride: frames between two that the feature distance looks at.
        flow_stride: pairs of frames between two that the flow is measured on.
    """

    idm: InverseDynamicsNet
    net: EfficientNetLite0 | None
    frame_stride: int = 4
    flow_stride: int = 4

    def embed(self, clips: Tensor) -> Tensor:
        """Clips as vectors whose squared distance is the feature distance."""
        assert self.net is not None
        device = next(self.net.parameters()).device
        return clip_embedding(self.net.embed, clips.to(device), self.frame_stride)

    def features(self, clips: Tensor) -> Tensor:
        """Features [N, 64] of clips for the Fréchet distance."""
        return self.idm.measure(clips)[1]


@dataclass
class Truth:
    """What the judges need of a start's real answers.

    Attributes:
        start: it.
        embedded_AD: the answers as vectors of the feature distance; None without that judge.
        motion_AD: true motion of the answers, from their poses, in full speeds, in four spans of time.
        commanded_APM: motion that the keys command in free space, in camera units and degrees a frame.
    """

    start: Start
    embedded_AD: Tensor | None
    motion_AD: Tensor
    commanded_APM: Tensor

    @classmethod
    def of(cls, start: Start, judges: Judges) -> Truth:
        """Measure a start's real answers."""
        height = start.answers_ATCHW.shape[-2]
        true_APM = frame_motion(start.intrinsics_AT33, start.c2w_AT44, height)
        asked = start.request(list(COUNTERFACTUAL_CHORDS), 0)
        return cls(
            start,
            judges.embed(start.answers_ATCHW) if judges.net is not None else None,
            binned(in_full_speeds(true_APM)),
            frame_motion(asked.intrinsics_BT33, asked.c2w_BT44, height),
        )


@dataclass
class Verdict:
    """What the judges found about one set of answers (a model's, the autoencoder's, or the real ones), start by start.

    Attributes:
        name: for people.
        key: for metrics.
        by_motion: twelve-way accuracy, judged by inverse dynamics against the answers' true motion.
        by_feature: the same, judged by feature distance to the real answers.
        dynamics: flow.
        features_ND: features of all clips, in the order of starts and actions.
        trans_error_S: mean error of the measured translation against the commanded, camera units a frame.
        rot_error_S: the same for turn and look, degrees a frame.
        psnr_S: against the real answers, in dB.
        luminance_S: mean, 0 to 255.
    """

    name: str
    key: str
    flow_stride: int
    by_motion: CounterfactualAccuracy = field(
        default_factory=lambda: CounterfactualAccuracy(len(COUNTERFACTUAL_CHORDS))
    )
    by_feature: CounterfactualAccuracy = field(
        default_factory=lambda: CounterfactualAccuracy(len(COUNTERFACTUAL_CHORDS))
    )
    _features: list[Tensor] = field(default_factory=list)
    _scalars: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dynamics = VideoDynamics(self.flow_stride)

    def add(self, answers_ATCHW: Tensor, truth: Truth, judges: Judges) -> None:
        """Judge one start's answers, uint8 [A, 33, 3, H, W]."""
        motion_APM, features_AD = judges.idm.measure(answers_ATCHW)
        self.by_motion.update(squared_distances(binned(in_full_speeds(motion_APM)), truth.motion_AD))
        if truth.embedded_AD is not None:
            self.by_feature.update(squared_distances(judges.embed(answers_ATCHW), truth.embedded_AD).cpu())
        history = truth.start.history_TCHW.expand(len(answers_ATCHW), *truth.start.history_TCHW.shape)
        self.dynamics.update(answers_ATCHW, history[:, -CLIP_FRAMES:])
        self._features.append(features_AD)
        off_APM = motion_APM - truth.commanded_APM
        psnr_A = psnr_B(answers_ATCHW, truth.start.answers_ATCHW)
        scalars = {
            "trans_error": off_APM[..., :2].norm(dim=-1).mean(),
            "rot_error": off_APM[..., 2:].norm(dim=-1).mean(),
            "psnr": psnr_A.mean(),
            "luminance": luminance(answers_ATCHW).mean(),
        }
        for name, value in scalars.items():
            self._scalars.setdefault(name, []).append(value)

    @property
    def features_ND(self) -> Tensor:
        """Features of all clips [S * A, 64]."""
        return torch.cat(self._features)

    def scalars(self) -> dict[str, Tensor]:
        """Measures with one value a start, [S]: accuracies, errors, PSNR, luminance and flow."""
        found = {name: torch.stack(values) for name, values in self._scalars.items()}
        found["accuracy_motion"] = self.by_motion.per_start()
        if self.by_feature.votes_AA.any():
            found["accuracy_feature"] = self.by_feature.per_start()
        actions = len(COUNTERFACTUAL_CHORDS)
        return found | {k: v.reshape(-1, actions).mean(1) for k, v in self.dynamics.per_clip().items()}
