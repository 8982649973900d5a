"""Camera poses from a text file, and how far two trajectories differ.

Axes are OpenCV's (x right, y down, z forward); poses are camera-to-world. N frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
from scipy.spatial.transform import Rotation

from ....registry import UserError
from .video import Video

_TUM, _W2C = 8, 12


@dataclass
class PoseTrack:
    """Poses of a video's frames.

    Attributes:
        c2w: float64 [N, 4, 4].
        intrinsics: float64 [N, 3, 3] in source pixels, or None where the file has none.
        known: bool [N].
        source: how they came about: "tum", "w2c" or "estimated".
    """

    c2w: numpy.ndarray
    intrinsics: numpy.ndarray | None
    known: numpy.ndarray
    source: str


def read_poses(path: Path, video: Video) -> PoseTrack:
    """Read a file of one pose a line.

    Either TUM's form, `timestamp tx ty tz qx qy qz qw` (camera-to-world, seconds), or a line as of Monst3R,
    RealEstate10K and the paper's release: `timestamp fx fy cx cy …` and then a world-to-camera matrix as 12 numbers (19
    or 20 columns), with the intrinsics as fractions of width and height, or in pixels where they are larger than 10. As
    many lines as frames are matched in order, others by their timestamps. Lines that begin with # or a letter are
    skipped.

    Raises:
        UserError: if a line is malformed, or the timestamps fit no frame.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or line.lstrip()[0] == "#" or line.lstrip()[0].isalpha():
            continue
        try:
            row = [float(w) for w in words]
        except ValueError:
            row = []
        if len(row) not in (_TUM, 19, 20) or not numpy.isfinite(row).all():
            raise UserError(
                f"{path}, line {number}: not a pose\n"
                "Wanted: 8 numbers (TUM: timestamp tx ty tz qx qy qz qw), or 19 or 20\n"
                "(timestamp fx fy cx cy …, then world-to-camera as 12 numbers)."
            )
        rows.append(row)
    if not rows or len({len(r) for r in rows}) > 1:
        raise UserError(f"{path}: no poses, or lines of different lengths")
    table = numpy.array(rows)
    c2w, intrinsics = _tum(table, path) if table.shape[1] == _TUM else _w2c(table, video, path)
    chosen, known = _match(table[:, 0], video, path)
    source = "tum" if intrinsics is None else "w2c"
    return PoseTrack(c2w[chosen], None if intrinsics is None else intrinsics[chosen], known, source)


def _tum(table: numpy.ndarray, path: Path) -> tuple[numpy.ndarray, None]:
    if (numpy.abs(numpy.linalg.norm(table[:, 4:], axis=1) - 1) > 0.01).any():
        raise UserError(f"{path}: quaternions (columns 5 to 8) that are not of length 1")
    c2w = numpy.tile(numpy.eye(4), (len(table), 1, 1))
    c2w[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    c2w[:, :3, 3] = table[:, 1:4]
    return c2w, None


def _w2c(table: numpy.ndarray, video: Video, path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    w2c = numpy.tile(numpy.eye(4), (len(table), 1, 1))
    w2c[:, :3] = table[:, -_W2C:].reshape(-1, 3, 4)
    turn = w2c[:, :3, :3]
    if numpy.abs(turn @ turn.swapaxes(1, 2) - numpy.eye(3)).max() > 0.01 or (numpy.linalg.det(turn) < 0).any():
        raise UserError(f"{path}: the last 12 columns are no world-to-camera matrices (their 3 x 3 part must rotate)")
    given = table[:, 1:5]
    height, width = video.size
    scale = numpy.array([width, height, width, height]) if given.max() <= 10 else numpy.ones(4)
    fx, fy, cx, cy = (given * scale).T
    if min(fx.min(), fy.min()) <= 0:
        raise UserError(f"{path}: focal lengths (columns 2 and 3) must be positive")
    intrinsics = numpy.tile(numpy.eye(3), (len(table), 1, 1))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1], intrinsics[:, 0, 2], intrinsics[:, 1, 2] = fx, fy, cx, cy
    return numpy.linalg.inv(w2c), intrinsics


def _match(stamps: numpy.ndarray, video: Video, path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Line of each frame, and whether it has one."""
    if len(stamps) == video.num_frames:
        return numpy.arange(len(stamps)), numpy.ones(len(stamps), bool)
    times = numpy.arange(video.num_frames) / video.fps
    line = numpy.abs(stamps[None] - times[:, None]).argmin(1) if len(stamps) < 20_000 else _nearest(stamps, times)
    known = numpy.abs(stamps[line] - times) <= 0.5 / video.fps
    if known.mean() < 0.5:
        raise UserError(
            f"{path}: {len(stamps)} poses for {video.num_frames} frames, and timestamps that fit {known.sum()} frames\n"
            f"Give one line a frame, or timestamps in seconds ({video.fps:g} frames a second)."
        )
    return line, known


def _nearest(stamps: numpy.ndarray, times: numpy.ndarray) -> numpy.ndarray:
    order = numpy.argsort(stamps)
    right = numpy.clip(numpy.searchsorted(stamps[order], times), 1, len(stamps) - 1)
    left_is_nearer = times - stamps[order][right - 1] < stamps[order][right] - times
    return order[right - left_is_nearer]


@dataclass(frozen=True)
class PoseError:
    """How far an estimated trajectory is from the true one. Scale and place are free; rotations are not.

    Attributes:
        rotation_deg: median error of the rotation over `gap` frames.
        direction_deg: median angle between the translations over `gap` frames, where the true one moves.
        trajectory_pct: root mean square distance of the camera centres after the best similarity (Umeyama), in % of the
            true path's length.
        gap: frames.
    """

    rotation_deg: float
    direction_deg: float
    trajectory_pct: float
    gap: int

    def as_dict(self) -> dict[str, float]:
        """Its numbers by name."""
        return asdict(self)


def pose_error(estimated: numpy.ndarray, true: numpy.ndarray, gap: int = 8) -> PoseError:
    """Compare poses [N, 4, 4] of the same frames."""
    steps = [numpy.linalg.inv(c2w[:-gap]) @ c2w[gap:] for c2w in (estimated, true)]
    off = steps[0][:, :3, :3].swapaxes(1, 2) @ steps[1][:, :3, :3]
    angles = numpy.degrees(numpy.arccos(numpy.clip((numpy.trace(off, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    moves = [s[:, :3, 3] for s in steps]
    lengths = numpy.linalg.norm(moves[1], axis=1)
    moving = lengths > 0.25 * max(float(numpy.median(lengths)), 1e-9)
    units = [m[moving] / numpy.maximum(numpy.linalg.norm(m[moving], axis=1, keepdims=True), 1e-9) for m in moves]
    directions = numpy.degrees(numpy.arccos(numpy.clip((units[0] * units[1]).sum(1), -1, 1)))
    path = numpy.linalg.norm(numpy.diff(true[:, :3, 3], axis=0), axis=1).sum()
    distance = _similarity_distance(estimated[:, :3, 3], true[:, :3, 3])
    return PoseError(
        float(numpy.median(angles)),
        float(numpy.median(directions)) if len(directions) else float("nan"),
        float(100 * distance / max(path, 1e-9)),
        gap,
    )


def _similarity_distance(points: numpy.ndarray, targets: numpy.ndarray) -> float:
    """Root mean square distance after the similarity that brings points [N, 3] nearest to targets (Umeyama 1991)."""
    a, b = points - points.mean(0), targets - targets.mean(0)
    u, s, vt = numpy.linalg.svd(b.T @ a)
    sign = numpy.array([1, 1, numpy.sign(numpy.linalg.det(u @ vt)) or 1.0])
    scale = (s * sign).sum() / max((a**2).sum(), 1e-12)
    moved = scale * a @ (u * sign @ vt).T
    return float(numpy.sqrt(((moved - b) ** 2).sum(1).mean()))
