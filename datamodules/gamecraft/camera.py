"""Cameras: poses and intrinsics that an action makes, and the Plücker rays that the model sees.

Axes are OpenCV's: x right, y down, z forward. A pose is camera-to-world. Pixel (column i, row j) has its centre at
(i + 0.5, j + 0.5), and K is in that convention: the middle of a picture W wide is at W/2. So K scales with the picture.
Pitch is in degrees, positive DOWN as in Doom, and is kept within -32 (up) to +56 (down). There is no roll.

Axes of arrays: T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from .actions import DEFAULT_LIMITS, Chord, SpeedLimits

if TYPE_CHECKING:
    import torch  # the processes that record do without it

PITCH_RANGE_DEG = (-32.0, 56.0)
Array = TypeVar("Array", np.ndarray, "torch.Tensor")


class CameraModel(Protocol):
    """How an engine turns a pitch into a picture."""

    @property
    def height(self) -> int:
        """Rows of the picture."""
        ...

    @property
    def width(self) -> int:
        """Columns of the picture."""
        ...

    def intrinsics(self, pitch_deg: np.ndarray) -> np.ndarray:
        """K, float64 [T,3,3], in pixels of (height, width), of pitches [T] in degrees."""
        ...

    def rotation_pitch(self, pitch_deg: np.ndarray) -> np.ndarray:
        """The part of each pitch [T] that truly rotates the camera, in degrees."""
        ...


@dataclass(frozen=True)
class ShearPitchCamera:
    """ViZDoom's software renderer at a field of view of 90: square of neither pixel nor pitch.

    fx = 2/3 H, fy = 0.8 H (Doom's pixels are 1.2 times as high as wide), the centre in the middle. Pitch does not
    rotate the camera but shifts the picture: cy' = cy - fy tan(pitch). A crop in width keeps all this; so does an
    area resize.
    """

    height: int
    width: int

    def intrinsics(self, pitch_deg: np.ndarray) -> np.ndarray:
        """K, float64 [T,3,3], with the shear of each pitch [T] in cy."""
        pitch_T = np.radians(np.asarray(pitch_deg, dtype=np.float64))
        k_T33 = np.zeros((*pitch_T.shape, 3, 3))
        fy = 0.8 * self.height
        k_T33[..., 0, 0] = 2 / 3 * self.height
        k_T33[..., 1, 1] = fy
        k_T33[..., 0, 2] = self.width / 2
        k_T33[..., 1, 2] = self.height / 2 - fy * np.tan(pitch_T)
        k_T33[..., 2, 2] = 1
        return k_T33

    def rotation_pitch(self, pitch_deg: np.ndarray) -> np.ndarray:
        """Zeros [T]: this renderer never rotates its camera about the lateral axis."""
        return np.zeros_like(np.asarray(pitch_deg, dtype=np.float64))


@dataclass(frozen=True)
class PinholeCamera:
    """A true perspective camera with square pixels; pitch rotates it.

    Attributes:
        height: rows.
        width: columns.
        vertical_fov_deg: whole vertical field of view.
    """

    height: int
    width: int
    vertical_fov_deg: float

    def intrinsics(self, pitch_deg: np.ndarray) -> np.ndarray:
        """K, float64 [T,3,3], the same whatever the pitch."""
        focal = self.height / 2 / math.tan(math.radians(self.vertical_fov_deg) / 2)
        k_33 = np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1]])
        return np.broadcast_to(k_33, (*np.shape(pitch_deg), 3, 3)).copy()

    def rotation_pitch(self, pitch_deg: np.ndarray) -> np.ndarray:
        """The pitch itself [T]."""
        return np.asarray(pitch_deg, dtype=np.float64)


def trajectory(
    chord: Chord,
    num_frames: int,
    limits: SpeedLimits = DEFAULT_LIMITS,
    *,
    pitch_deg: float = 0.0,
    camera: CameraModel,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Poses and intrinsics of a chord held in free space, as played and as the recorder drives its engine.

    Each frame turns first and then moves along the new heading, so frame t (from 0) is t turns and t moves from frame
    0, whose pose is the identity. Frame 0 is itself one frame's motion after the picture that the chord started from.

    Args:
        chord: the keys held.
        num_frames: T.
        limits: what a fraction of 1 means.
        pitch_deg: pitch of the picture before frame 0, positive down.
        camera: how pitch shows, and the picture's size.

    Returns:
        K, float64 [T,3,3], in pixels; c2w, float64 [T,4,4], in camera units relative to frame 0; the pitch of the last
        frame in degrees, for the next chord.
    """
    forward, right, turn_left, look_up = chord.axes()
    yaw_T = -turn_left * limits.turn_deg * np.arange(num_frames, dtype=np.float64)  # positive to the right
    pitch_T = np.clip(pitch_deg - look_up * limits.look_deg * np.arange(1, num_frames + 1), *PITCH_RANGE_DEG)
    heading_T = np.radians(yaw_T)
    ahead, aside = forward * limits.forward * limits.unit_scale, right * limits.strafe * limits.unit_scale
    step_T3 = np.stack(
        [
            ahead * np.sin(heading_T) + aside * np.cos(heading_T),
            np.zeros(num_frames),
            ahead * np.cos(heading_T) - aside * np.sin(heading_T),
        ],
        axis=-1,
    )
    c2w_T44 = _pose(yaw_T, camera.rotation_pitch(pitch_T), np.cumsum(step_T3, axis=0))
    last_pitch = float(pitch_T[-1]) if num_frames else float(pitch_deg)
    return camera.intrinsics(pitch_T), relative_to_first(c2w_T44), last_pitch


def _pose(yaw_deg: np.ndarray, pitch_deg: np.ndarray, centre_T3: np.ndarray) -> np.ndarray:
    """c2w [T,4,4] of yaws (positive right) and pitches (positive down) in a world whose axes are right, down, ahead."""
    yaw_T, pitch_T = np.radians(yaw_deg), np.radians(pitch_deg)
    cos_y, sin_y, cos_p, sin_p = np.cos(yaw_T), np.sin(yaw_T), np.cos(pitch_T), np.sin(pitch_T)
    c2w_T44 = np.zeros((len(yaw_T), 4, 4))
    c2w_T44[:, :3, 0] = np.stack([cos_y, np.zeros_like(yaw_T), -sin_y], axis=-1)
    c2w_T44[:, :3, 1] = np.stack([-sin_y * sin_p, cos_p, -cos_y * sin_p], axis=-1)
    c2w_T44[:, :3, 2] = np.stack([sin_y * cos_p, sin_p, cos_y * cos_p], axis=-1)
    c2w_T44[:, :3, 3] = centre_T3
    c2w_T44[:, 3, 3] = 1
    return c2w_T44


def doom_c2w(
    x: np.ndarray | float,
    y: np.ndarray | float,
    z: np.ndarray | float,
    angle_deg: np.ndarray | float,
    unit_scale: float = DEFAULT_LIMITS.unit_scale,
) -> np.ndarray:
    """Absolute pose, float64 [...,4,4], in camera units, of Doom's camera variables (map units, degrees).

    Doom's world has z up and angles that grow to the left; forward is (cos a, sin a, 0), right (sin a, -cos a, 0).
    """
    x, y, z, angle = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (x, y, z, angle_deg)))
    cos, sin, zero = np.cos(np.radians(angle)), np.sin(np.radians(angle)), np.zeros_like(angle)
    c2w = np.zeros((*angle.shape, 4, 4))
    c2w[..., :3, 0] = np.stack([sin, -cos, zero], axis=-1)
    c2w[..., 2, 1] = -1
    c2w[..., :3, 2] = np.stack([cos, sin, zero], axis=-1)
    c2w[..., :3, 3] = np.stack([x, y, z], axis=-1) * unit_scale
    c2w[..., 3, 3] = 1
    return c2w


def pitched(c2w: np.ndarray, pitch_deg: np.ndarray) -> np.ndarray:
    """Level poses [T,4,4] tilted about their own lateral axes by pitches [T] in degrees, positive down."""
    return c2w @ _pose(np.zeros_like(pitch_deg), pitch_deg, np.zeros((len(pitch_deg), 3)))


def relative_to_first(c2w: Array) -> Array:
    """Poses [...,T,4,4] (numpy or torch) as seen from each sequence's first frame, whose pose becomes the identity."""
    relative = c2w.copy() if isinstance(c2w, np.ndarray) else c2w.clone()
    first = c2w[..., :1, :, :]
    inverse_R33 = first[..., :3, :3].swapaxes(-1, -2)
    relative[..., :3, :3] = inverse_R33 @ c2w[..., :3, :3]
    relative[..., :3, 3:] = inverse_R33 @ (c2w[..., :3, 3:] - first[..., :3, 3:])
    return relative


def static_camera(intrinsics: Array) -> Array:
    """Identity poses [...,T,4,4], of the kind and dtype of K [...,T,3,3]: the camera of the unconditional branch."""
    shape = (*intrinsics.shape[:-2], 4, 4)
    if isinstance(intrinsics, np.ndarray):
        return np.broadcast_to(np.eye(4, dtype=intrinsics.dtype), shape).copy()
    import torch

    return torch.eye(4, dtype=intrinsics.dtype, device=intrinsics.device).expand(shape).contiguous()


def invert_time(intrinsics: Array, c2w: Array) -> tuple[Array, Array]:
    """K [...,T,3,3] and poses [...,T,4,4] of a clip shown backwards: reversed, and relative to its new first frame."""
    if isinstance(c2w, np.ndarray):
        return np.flip(intrinsics, -3).copy(), relative_to_first(np.flip(c2w, -3))
    return intrinsics.flip(-3), relative_to_first(c2w.flip(-3))


def plucker_rays(
    intrinsics: torch.Tensor | np.ndarray, c2w: torch.Tensor | np.ndarray, height: int, width: int
) -> torch.Tensor:
    """Plücker coordinates of the ray through every pixel's centre: moment o x d, then unit direction d.

    Args:
        intrinsics: K [...,T,3,3] in pixels of (height, width), without skew.
        c2w: poses [...,T,4,4]; the moment is in their unit of length.
        height: H.
        width: W.

    Returns:
        float32 [...,T,6,H,W] on the device of `c2w`, computed in float64.
    """
    import torch

    c2w_T44 = torch.as_tensor(c2w).double()
    k_T33 = torch.as_tensor(intrinsics, device=c2w_T44.device).double()
    rows_H = torch.arange(height, device=c2w_T44.device, dtype=torch.float64) + 0.5
    columns_W = torch.arange(width, device=c2w_T44.device, dtype=torch.float64) + 0.5
    x_TW = (columns_W - k_T33[..., 0, 2, None]) / k_T33[..., 0, 0, None]
    y_TH = (rows_H - k_T33[..., 1, 2, None]) / k_T33[..., 1, 1, None]
    right_T3, down_T3, ahead_T3 = c2w_T44[..., :3, 0], c2w_T44[..., :3, 1], c2w_T44[..., :3, 2]
    # R is a rotation, so a ray's length is that of (x, y, 1)
    scale_THW = (x_TW.square()[..., None, :] + y_TH.square()[..., :, None] + 1).rsqrt()
    across_T3W = right_T3[..., None] * x_TW[..., None, :]
    along_T3H = down_T3[..., None] * y_TH[..., None, :] + ahead_T3[..., None]
    # o x d is linear in d, so it is made from the same two small factors
    centre_T31 = c2w_T44[..., :3, 3, None]
    across_T6W = torch.cat([torch.linalg.cross(centre_T31.expand_as(across_T3W), across_T3W, dim=-2), across_T3W], -2)
    along_T6H = torch.cat([torch.linalg.cross(centre_T31.expand_as(along_T3H), along_T3H, dim=-2), along_T3H], -2)
    return ((across_T6W[..., None, :] + along_T6H[..., :, None]) * scale_THW[..., None, :, :]).float()
