"""Action level of the two-tier partition: where the optical flow changes, the player changed the action.

The paper takes RAFT's flow (arXiv 2506.17201, section 4.1); this takes OpenCV's DIS flow, which needs no weights. T
frames of a scene.
"""

from __future__ import annotations

import itertools

import cv2
import numpy

from ..actions import CLIP_FRAMES

_GRID = (3, 4)
_WIDTH = 128
_SPAN = 4  # frames averaged before and after a change
_EDGE = 4  # a boundary this near to a clip's end does not spoil it


def flow_signature(grey_THW: numpy.ndarray) -> numpy.ndarray:
    """Mean flow in each cell of a grid of 3 x 4 from each frame to the next, float32 [T - 1, 24], % of the width."""
    height = max(16, round(grey_THW.shape[1] * _WIDTH / grey_THW.shape[2]))
    small = [cv2.resize(frame, (_WIDTH, height), interpolation=cv2.INTER_AREA) for frame in grey_THW]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    cells, no_guess = [], numpy.zeros((height, _WIDTH, 2), numpy.float32)
    for before, after in itertools.pairwise(small):
        field = flow.calc(before, after, no_guess.copy())
        cells.append(cv2.resize(field, _GRID[::-1], interpolation=cv2.INTER_AREA).ravel())
    return numpy.array(cells, numpy.float32).reshape(-1, 2 * _GRID[0] * _GRID[1]) * (100 / _WIDTH)


def find_action_cuts(signature: numpy.ndarray, least: float = 0.25, relative: float = 0.4) -> list[int]:
    """Frames at which a new action begins.

    A frame is one if the mean signature of the four steps after it differs from that of the four before by more than
    any other frame's near it, by `least` (% of the width, root mean square over cells) and by `relative` times the
    motion there.
    """
    steps = len(signature)
    if steps < 2 * _SPAN:
        return []
    total = numpy.concatenate([numpy.zeros((1, signature.shape[1])), numpy.cumsum(signature, 0)])
    means = (total[_SPAN:] - total[:-_SPAN]) / _SPAN
    before, after = means[:-_SPAN], means[_SPAN:]
    change = numpy.sqrt(((after - before) ** 2).mean(1))
    motion = numpy.maximum(numpy.sqrt((after**2).mean(1)), numpy.sqrt((before**2).mean(1)))
    cuts = []
    for i in numpy.flatnonzero(change > least + relative * motion).tolist():
        near = change[max(0, i - 2 * _SPAN) : i + 2 * _SPAN + 1]
        if change[i] == near.max():
            cuts.append(i + _SPAN)
    return cuts


def place_clips(num_frames: int, cuts: list[int]) -> int:
    """The first frame of a scene's first clip: of all 33, that at which the fewest clips are cut in their midst.

    A clip cut in its midst costs twice as much as one clip less. Of equals, the one whose ends lie nearest to cuts.
    """

    def cost(first: int) -> tuple[float, int]:
        clips = (num_frames - first) // CLIP_FRAMES
        inside = [c - first for c in cuts if 0 <= c - first < clips * CLIP_FRAMES]
        off = {c: min(c % CLIP_FRAMES, -c % CLIP_FRAMES) for c in inside}
        cut = {c // CLIP_FRAMES for c in inside if off[c] >= _EDGE}
        return len(cut) - 0.5 * clips, sum(off.values())

    return min(range(min(CLIP_FRAMES, max(1, num_frames - CLIP_FRAMES + 1))), key=cost)
