"""Films without a page: actions in, a film file out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ....datamodules.gamecraft.actions import CLIP_FRAMES, Segment
from ..camera_path import chunks_of
from .film import film
from .session import FPS
from .starts import Start
from .world import PipelineWorld


def render(world: PipelineWorld, start: Start, segments: list[Segment], out: Path, *, fps: float = FPS) -> float:
    """Write the film that begins with `start` and follows `segments`: the start frame, then every frame asked for.

    Chunks have 33 frames each; the last one's keys are held until it is full, and what goes beyond is cut.

    Args:
        world: the model.
        start: first frame and caption.
        segments: keys and for how many frames.
        out: `.mp4` or `.gif`.
        fps: frames a second.

    Returns:
        Seconds that the model took.

    Raises:
        UserError: if the film can't be written.
    """
    left = sum(segment.num_frames for segment in segments)
    taken_s = 0.0
    with film(out, fps) as add:
        began = time.perf_counter()
        state = world.start(start.image, start.caption)
        taken_s += time.perf_counter() - began
        add(np.asarray(start.image))
        for chords in chunks_of(segments):
            began = time.perf_counter()
            frames_BFHWC, state = world.pipeline.continue_film(state, [chords])
            taken_s += time.perf_counter() - began
            for frame_HW3 in frames_BFHWC[0, : min(left, CLIP_FRAMES)].numpy():
                add(frame_HW3)
            left -= CLIP_FRAMES
    return taken_s
