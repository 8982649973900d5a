"""Camera poses estimated from the pictures alone: tracked corners, essential matrices, one scale a scene.

A simple visual odometry by OpenCV, for videos that come without poses. What it gives is marked as estimated. Scale is
unknown to it: a scene is scaled so that its faster parts move as the recorder's camera does at full speed. Below a
width of about 300 pixels it is rough (a degree or two over 8 frames), and things that move by themselves disturb it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy
from scipy.spatial.transform import Rotation, Slerp

from ..actions import DEFAULT_LIMITS

_CORNERS = 600
_FEWEST = 15  # tracks below which nothing can be said
_PARALLAX = 0.012  # of the width: corners move that far (median) between two key frames, if they do within _LONGEST
_LONGEST = 12
_STILL_PX = 0.15
_ROTATION_PX = 0.5  # what is left after the best rotation, at or below which the camera is taken to turn on the spot
FULL_SPEED = DEFAULT_LIMITS.forward * DEFAULT_LIMITS.unit_scale
"""Camera units a frame that the 90th percentile of an estimated scene's speed is scaled to."""


@dataclass(frozen=True)
class Estimate:
    """Poses of a scene.

    Attributes:
        c2w: float64 [T, 4, 4], relative to its first frame.
        tracked: share of the steps between key frames that could be estimated; the others repeat the last motion.
        residual_px: median distance of tracked corners from their epipolar lines, in pixels of the grey pictures.
    """

    c2w: numpy.ndarray
    tracked: float
    residual_px: float


@dataclass
class _Step:
    """The motion between two key frames: x_after = R x_before + t."""

    rotation_33: numpy.ndarray
    translation_3: numpy.ndarray
    residual_px: float


def estimate_poses(grey_THW: numpy.ndarray, k_33: numpy.ndarray, seed: int = 0) -> Estimate:
    """Estimate the poses of consecutive frames.

    Args:
        grey_THW: uint8.
        k_33: intrinsics of the grey pictures, pixel centres at +0.5.
        seed: seed of OpenCV's random sampling.
    """
    cv2.setRNGSeed(seed)
    keys, poses = [0], [numpy.eye(4)]
    depths: dict[tuple[float, float], float] = {}
    speed = 1.0 / _LONGEST
    step, failed, residuals = _Step(numpy.eye(3), numpy.zeros(3), 0.0), 0, []
    while keys[-1] < len(grey_THW) - 1:
        start, end, before_P2, after_P2 = _track(grey_THW, keys[-1])
        found = _two_views(before_P2, after_P2, k_33)
        if found is None:
            failed += 1
            depths = {}
        else:
            step, depths = _scaled(found, before_P2, after_P2, k_33, depths, speed * (end - start))
            speed = float(numpy.linalg.norm(step.translation_3)) / (end - start) or speed
            residuals.append(step.residual_px)
        moved = numpy.eye(4)  # the camera's motion is the inverse of the points'
        moved[:3, :3], moved[:3, 3] = step.rotation_33.T, -step.rotation_33.T @ step.translation_3
        keys.append(end)
        poses.append(poses[-1] @ moved)
        assert end > start
    c2w = _between(numpy.array(keys), numpy.array(poses), len(grey_THW))
    speeds = numpy.linalg.norm(numpy.diff(c2w[:, :3, 3], axis=0), axis=1)
    fast = float(numpy.percentile(speeds, 90)) if len(speeds) else 0.0
    if fast > 1e-9:
        c2w[:, :3, 3] *= FULL_SPEED / fast
    steps = max(1, len(keys) - 1)
    return Estimate(c2w, 1 - failed / steps, float(numpy.median(residuals)) if residuals else float("nan"))


def _track(grey_THW: numpy.ndarray, start: int) -> tuple[int, int, numpy.ndarray, numpy.ndarray]:
    """Follow corners from frame `start` until they moved enough: (start, end, points [P, 2] in each)."""
    width = grey_THW.shape[2]
    corners = cv2.goodFeaturesToTrack(grey_THW[start], _CORNERS, 0.005, max(4, width // 80))
    first = numpy.zeros((0, 2), numpy.float32) if corners is None else corners.reshape(-1, 2)
    end, points = start, first
    while end < len(grey_THW) - 1 and end - start < _LONGEST:
        end += 1
        if not len(first):
            continue
        moved, alive = _follow(grey_THW[end - 1], grey_THW[end], points)
        first, points = first[alive], moved[alive]
        if len(first) and numpy.median(numpy.linalg.norm(points - first, axis=1)) > _PARALLAX * width:
            break
    return start, end, first.astype(float) + 0.5, points.astype(float) + 0.5


def _follow(before: numpy.ndarray, after: numpy.ndarray, points: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Lucas-Kanade there and back; alive are those that come back to where they were."""
    if not len(points):
        return points, numpy.zeros(0, bool)
    # the last argument is where to look first, and unused without a flag
    there, good, _ = cv2.calcOpticalFlowPyrLK(before, after, points, points.copy(), winSize=(15, 15), maxLevel=3)
    back, good_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, points.copy(), winSize=(15, 15), maxLevel=3)
    near = numpy.linalg.norm(back - points, axis=1) < 0.5
    return there, near & (good.ravel() == 1) & (good_back.ravel() == 1)


def _two_views(before_P2: numpy.ndarray, after_P2: numpy.ndarray, k_33: numpy.ndarray) -> _Step | None:
    """Motion between two views, translation of length 1 or 0; None if too little was tracked."""
    if len(before_P2) < _FEWEST:
        return None
    shift = numpy.median(numpy.linalg.norm(after_P2 - before_P2, axis=1))
    if shift < _STILL_PX:
        return _Step(numpy.eye(3), numpy.zeros(3), float(shift))
    turn_33, left_P = _rotation_only(before_P2, after_P2, k_33)
    if numpy.median(left_P) <= _ROTATION_PX:
        return _Step(turn_33, numpy.zeros(3), float(numpy.median(left_P)))
    essential, inliers = cv2.findEssentialMat(before_P2, after_P2, k_33, cv2.USAC_MAGSAC, 0.999, 0.7)
    if essential is None or essential.shape != (3, 3) or inliers.sum() < _FEWEST:
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential, before_P2, after_P2, k_33, mask=inliers.copy())
    residual = _epipolar_px(before_P2, after_P2, k_33, rotation, translation.ravel())
    return _Step(rotation, translation.ravel(), float(numpy.median(residual)))


def _rays(points_P2: numpy.ndarray, k_33: numpy.ndarray) -> numpy.ndarray:
    """Directions [P, 3] with z = 1."""
    return numpy.column_stack([points_P2, numpy.ones(len(points_P2))]) @ numpy.linalg.inv(k_33).T


def _rotation_only(
    before_P2: numpy.ndarray, after_P2: numpy.ndarray, k_33: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The rotation that best explains the tracks without a translation, and what it leaves [P], in pixels."""
    a, b = _rays(before_P2, k_33), _rays(after_P2, k_33)
    a, b = (v / numpy.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    weights, turn = numpy.ones(len(a)), numpy.eye(3)
    left_P = numpy.zeros(len(a))
    for _ in range(5):  # reweighted, so that a few wrong tracks do not turn it
        u, _, vt = numpy.linalg.svd((b * weights[:, None]).T @ a)
        turn = u @ numpy.diag([1, 1, numpy.linalg.det(u @ vt)]) @ vt
        seen = a @ turn.T @ k_33.T
        left_P = numpy.linalg.norm(seen[:, :2] / seen[:, 2:] - after_P2, axis=1)
        weights = 1 / (1 + (left_P / _ROTATION_PX) ** 2)
    return turn, left_P


def _epipolar_px(
    before_P2: numpy.ndarray,
    after_P2: numpy.ndarray,
    k_33: numpy.ndarray,
    rotation: numpy.ndarray,
    t_3: numpy.ndarray,
) -> numpy.ndarray:
    cross = numpy.array([[0, -t_3[2], t_3[1]], [t_3[2], 0, -t_3[0]], [-t_3[1], t_3[0], 0]])
    back = numpy.linalg.inv(k_33)
    lines = numpy.column_stack([before_P2, numpy.ones(len(before_P2))]) @ (back.T @ cross @ rotation @ back).T
    distance = (lines[:, :2] * after_P2).sum(1) + lines[:, 2]
    return numpy.abs(distance) / numpy.maximum(numpy.linalg.norm(lines[:, :2], axis=1), 1e-12)


def _scaled(
    step: _Step,
    before_P2: numpy.ndarray,
    after_P2: numpy.ndarray,
    k_33: numpy.ndarray,
    depths: dict[tuple[float, float], float],
    usual: float,
) -> tuple[_Step, dict[tuple[float, float], float]]:
    """Scale a step to the depths that the last one left (by nearby corners), and the depths after it.

    Where no depth is known any more, the step gets the length `usual`.
    """
    a, b = _rays(before_P2, k_33), _rays(after_P2, k_33)
    where, known = numpy.array(list(depths)).reshape(-1, 2), numpy.array(list(depths.values()))
    nearest = _nearest(before_P2, where)
    if not step.translation_3.any():  # depths carry over a turn on the spot
        seen = a * known[nearest][:, None] @ step.rotation_33.T if len(known) else a
        good = (nearest >= 0) & (seen[:, 2] > 0) if len(known) else numpy.zeros(len(a), bool)
        return step, {tuple(p): float(d) for p, d in zip(after_P2[good], seen[good, 2], strict=True)}
    # depth_b b = depth_a turned + t for each corner: both depths by least squares
    system = numpy.stack([a @ step.rotation_33.T, -b], -1)
    normal = system.swapaxes(1, 2) @ system + 1e-12 * numpy.eye(2)
    solved = numpy.linalg.solve(normal, -(system.swapaxes(1, 2) @ step.translation_3)[..., None])[..., 0]
    front = (solved > 0).all(1) & (solved < 200).all(1)
    use = front & (nearest >= 0)
    scale = float(numpy.median(known[nearest[use]] / solved[use, 0])) if use.sum() >= 5 else usual
    scaled = _Step(step.rotation_33, step.translation_3 * scale, step.residual_px)
    return scaled, {tuple(p): float(d) for p, d in zip(after_P2[front], scale * solved[front, 1], strict=True)}


def _nearest(points_P2: numpy.ndarray, where_Q2: numpy.ndarray, radius: float = 3.0) -> numpy.ndarray:
    """For each point the place nearest to it, -1 where none is within `radius` pixels."""
    if not len(where_Q2) or not len(points_P2):
        return numpy.full(len(points_P2), -1)
    distances = numpy.linalg.norm(points_P2[:, None] - where_Q2[None], axis=2)
    return numpy.where(distances.min(1) <= radius, distances.argmin(1), -1)


def _between(keys: numpy.ndarray, poses: numpy.ndarray, num_frames: int) -> numpy.ndarray:
    """Poses of all frames from those of key frames: rotations along the arc, centres along the line."""
    c2w = numpy.tile(numpy.eye(4), (num_frames, 1, 1))
    if len(keys) > 1:
        times = numpy.arange(num_frames)
        c2w[:, :3, :3] = Slerp(keys, Rotation.from_matrix(poses[:, :3, :3]))(times).as_matrix()
        c2w[:, :3, 3] = numpy.column_stack([numpy.interp(times, keys, poses[:, i, 3]) for i in range(3)])
    return c2w
