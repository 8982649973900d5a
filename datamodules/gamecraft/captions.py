"""Captions of recorded play from a closed vocabulary: light, colour, material, indoors or out, what the player does.

The verb is of the whole episode and names no direction, so that a caption does not give away what a chunk's action is.
The short form has at most 16 word pieces, the long one is a sentence; the paper (arXiv 2506.17201, section 4.1) trains
on both.
"""

from __future__ import annotations

import colorsys

import numpy as np

from .actions import Chord

LIGHTS = ("dark", "dim", "bright")
COLOURS = ("grey", "brown", "red", "green", "blue")
PLACES = ("indoors", "outdoors", "half outdoors")
VERBS = ("standing still", "walking", "sidestepping", "looking around")


def light_of(frames_NHW3: np.ndarray) -> str:
    """One of `LIGHTS`, by the mean of uint8 frames."""
    mean = float(frames_NHW3[::8].mean())
    return LIGHTS[0] if mean < 55 else LIGHTS[1] if mean < 90 else LIGHTS[2]


def colour_of(frames_NHW3: np.ndarray) -> str:
    """One of `COLOURS`, by the mean colour of uint8 frames."""
    red, green, blue = frames_NHW3[::8].reshape(-1, 3).mean(0) / 255
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    if saturation < 0.15:
        return "grey"
    degrees = hue * 360
    if degrees < 14 or degrees >= 330:
        return "red"
    return "brown" if degrees < 55 else "green" if degrees < 170 else "blue"


def place_of(sky: np.ndarray) -> str:
    """One of `PLACES`, by whether the sky was overhead at each of several moments (bools)."""
    share = float(np.mean(sky)) if len(sky) else 0.0
    return PLACES[1] if share > 0.7 else PLACES[2] if share > 0.3 else PLACES[0]


def verb_of(chords: list[Chord]) -> str:
    """One of `VERBS`, by the axis that the chords used most."""
    used = np.abs([chord.axes() for chord in chords]).mean(0)
    ahead, aside, turn, look = (float(v) for v in used)
    if max(used) < 0.05:
        return VERBS[0]
    if max(ahead, aside) < 0.6 * max(turn, look):
        return VERBS[3]
    return VERBS[1] if ahead >= aside else VERBS[2]


def captions(light: str, colour: str, material: str, place: str, verb: str) -> tuple[str, str]:
    """Short and long caption of the five words."""
    return (
        f"{light} {colour} {material} level, {place}, {verb}",
        f"A first-person view of a game level of {colour} {material}, {place}, in {light} light; the player is {verb}.",
    )
