"""Scene level of the two-tier partition: cuts found by PySceneDetect (arXiv 2506.17201, section 4.1)."""

from __future__ import annotations

from ....registry import UserError, install_line
from .video import Video

MAX_SCENE_S = 60.0
"""Longer scenes are taken in pieces of this length, which bounds the memory."""


def find_scenes(video: Video, threshold: float = 27.0) -> list[tuple[int, int]]:
    """Scenes as (first frame, frame after the last), in order and without gaps.

    Args:
        video: the video.
        threshold: of PySceneDetect's content detector; lower finds more cuts.

    Raises:
        UserError: if PySceneDetect is not installed.
    """
    try:
        from scenedetect import ContentDetector, detect
    except ImportError as error:
        raise UserError(f"finding scene cuts needs PySceneDetect\n{install_line('gamecraft')}") from error
    found = detect(str(video.path), ContentDetector(threshold=threshold), start_in_scene=True)
    scenes = [(start.frame_num, end.frame_num) for start, end in found]
    longest = int(MAX_SCENE_S * video.fps)
    return [(at, min(at + longest, end)) for start, end in scenes for at in range(start, end, longest)]
