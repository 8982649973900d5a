"""From the keys of a film to the camera of each of its chunks, keys that change within a chunk included.

Axis legend: F video frame (33).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ...datamodules.gamecraft.actions import CLIP_FRAMES, Chord, Segment, SpeedLimits
from ...datamodules.gamecraft.camera import CameraModel, trajectory


def chunks_of(segments: Sequence[Segment]) -> list[list[Chord]]:
    """The chord of every frame, chunk by chunk (33 frames each); the last chord is held until its chunk ends."""
    frames = [segment.chord for segment in segments for _ in range(segment.num_frames)]
    frames += frames[-1:] * (-len(frames) % CLIP_FRAMES)
    return [frames[start : start + CLIP_FRAMES] for start in range(0, len(frames), CLIP_FRAMES)]


def camera_path(
    chords: Sequence[Chord], limits: SpeedLimits, *, pitch_deg: float, camera: CameraModel
) -> tuple[np.ndarray, np.ndarray, float]:
    """Intrinsics and poses of a chunk whose frames have a chord each.

    Args:
        chords: one for each frame, F of them.
        limits: what a fraction of 1 means.
        pitch_deg: pitch of the picture before the first frame, positive down.
        camera: how pitch shows.

    Returns:
        K, float64 [F,3,3]; c2w, float64 [F,4,4], relative to the first frame; the last frame's pitch.
    """
    runs = [(chord, len(list(frames))) for chord, frames in groupby(chords)]
    intrinsics, poses, pitch = trajectory(*runs[0], limits, pitch_deg=pitch_deg, camera=camera)
    for chord, count in runs[1:]:
        # frame 0 of this run is the last frame so far: one frame of looking before it cancels out
        before = pitch + chord.axes()[3] * limits.look_deg
        run_K, run_c2w, pitch = trajectory(chord, count + 1, limits, pitch_deg=before, camera=camera)
        intrinsics = np.concatenate([intrinsics, run_K[1:]])
        poses = np.concatenate([poses, poses[-1] @ run_c2w[1:]])
    return intrinsics, poses, pitch
