"""What a recording must not be: too dark, too bright, without contrast, stuck at a wall, or falling.

The paper's luminance filter (arXiv 2506.17201, section 4.1), and those that a game with walls and stairs needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .actions import CLIP_FRAMES, DEFAULT_LIMITS, Chord, SpeedLimits

_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class FilterLimits:
    """Bounds of the filters.

    Attributes:
        dark: an episode with a clip whose mean luminance (0 to 255) is below this is "dark".
        bright: one above this is "bright".
        saturated: a clip with a larger share of its pixels at 250 or above is "bright" too.
        contrast: a clip whose luminance has a smaller spread within its pictures is "flat".
        travelled: a clip that got less than this share of the way commanded is "stuck".
        fall: a clip whose camera rises or sinks by more map units within one frame "fell".
    """

    dark: float = 28.0
    bright: float = 215.0
    saturated: float = 0.4
    contrast: float = 8.0
    travelled: float = 0.6
    fall: float = 12.0


DEFAULT_FILTERS = FilterLimits()
FILTERS = ("dark", "bright", "flat", "stuck", "fell", "ended")
"""Names of all filters; "ended" is an episode during which the level ended."""


def luminance_fault(frames_NHW3: np.ndarray, bounds: FilterLimits = DEFAULT_FILTERS) -> str | None:
    """The luminance filter's answer to uint8 frames, judged by clips of 33: "dark", "bright", "flat" or None."""
    for first in range(0, len(frames_NHW3), CLIP_FRAMES):
        luma = frames_NHW3[first : first + CLIP_FRAMES : 4, ::2, ::2] @ _LUMA  # a sixteenth is enough to judge by
        mean = luma.mean()
        if mean < bounds.dark:
            return "dark"
        if mean > bounds.bright or (luma >= 250).mean() > bounds.saturated:
            return "bright"
        if luma.std(axis=(1, 2)).mean() < bounds.contrast:
            return "flat"
    return None


def motion_fault(
    positions_N3: np.ndarray,
    chords: list[Chord],
    limits: SpeedLimits = DEFAULT_LIMITS,
    bounds: FilterLimits = DEFAULT_FILTERS,
) -> str | None:
    """The motion filters' answer: "stuck", "fell" or None.

    Args:
        positions_N3: camera centres in map units, 33 a chord.
        chords: the chords commanded.
        limits: what a fraction of 1 means.
        bounds: bounds of the filters.
    """
    step_N3 = np.diff(positions_N3, axis=0)
    if len(step_N3) and np.abs(step_N3[:, 2]).max() > bounds.fall:
        return "fell"
    for index, chord in enumerate(chords):
        ahead, aside, _, _ = chord.axes()
        wanted = np.hypot(ahead * limits.forward, aside * limits.strafe) * (CLIP_FRAMES - 1)
        clip_T3 = step_N3[index * CLIP_FRAMES : index * CLIP_FRAMES + CLIP_FRAMES - 1]
        if np.hypot(clip_T3[:, 0], clip_T3[:, 1]).sum() < bounds.travelled * wanted:
            return "stuck"
    return None
