"""Camera motion from frame to frame, out of poses and intrinsics.

Axis legend: T frame, P pair of neighbouring frames (T - 1), A motion axis. Camera axes are OpenCV's: right, down,
forward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...datamodules.gamecraft.actions import DEFAULT_LIMITS

AXES = ("forward", "strafe", "turn", "look")
UNITS = ("units/frame", "units/frame", "degrees/frame", "degrees/frame")
FULL_SPEED = (
    DEFAULT_LIMITS.forward * DEFAULT_LIMITS.unit_scale,
    DEFAULT_LIMITS.strafe * DEFAULT_LIMITS.unit_scale,
    DEFAULT_LIMITS.turn_deg,
    DEFAULT_LIMITS.look_deg,
)


def frame_motion(intrinsics_T33: Tensor, c2w_T44: Tensor, height: int) -> Tensor:
    """Motion between neighbouring frames, in the axes of the earlier one's camera.

    Pitch counts wherever it is kept: as a rotation in `c2w`, or as a shear in the intrinsics' cy (ViZDoom).

    Args:
        intrinsics_T33: [..., T, 3, 3], in pixels.
        c2w_T44: [..., T, 4, 4], camera to world, in camera units.
        height: of the picture in pixels.

    Returns:
        [..., T - 1, 4] float32: forward and strafe (right is positive) in camera units a frame, turn (right is
        positive) and look (up is positive) in degrees a frame.
    """
    pose_T44 = c2w_T44.double()
    step_P44 = torch.linalg.inv(pose_T44[..., :-1, :, :]) @ pose_T44[..., 1:, :, :]
    ahead_P3 = step_P44[..., :3, 2]
    turn_P = torch.atan2(ahead_P3[..., 0], ahead_P3[..., 2])
    tilt_P = torch.asin((-ahead_P3[..., 1]).clamp(-1, 1))
    k_T33 = intrinsics_T33.double()
    shear_T = torch.atan((k_T33[..., 1, 2] - height / 2) / k_T33[..., 1, 1])  # cy moves down when the view goes up
    look_P = tilt_P + shear_T[..., 1:] - shear_T[..., :-1]
    motion_PA = (step_P44[..., 2, 3], step_P44[..., 0, 3], torch.rad2deg(turn_P), torch.rad2deg(look_P))
    return torch.stack(motion_PA, -1).float()


def in_full_speeds(motion_PA: Tensor) -> Tensor:
    """Motion [..., 4] as fractions of the full speed of each axis."""
    return motion_PA / motion_PA.new_tensor(FULL_SPEED)


def binned(motion_PA: Tensor, num_bins: int = 4) -> Tensor:
    """Mean motion [..., num_bins, 4] in equal spans of time, of motion [..., P, 4]; pairs left over are cut."""
    span = motion_PA.shape[-2] // num_bins
    return motion_PA[..., : span * num_bins, :].unflatten(-2, (num_bins, span)).mean(-2)
