"""Straight strokes of a page that is a picture: the rules of its tables, found as long runs of ink.

Axis legend: H pixels down, W pixels across.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .ocr import OcrPage
from .ocr_glyphs import skew_of
from .strokes import Stroke

if TYPE_CHECKING:
    from PIL import Image

MIN_FLAT = 18.0  # points: dashes of large type are shorter
MIN_TALL = 11.0  # a row of a table is higher
MAX_THICK = 3.4  # points; what is thicker is a filled box
SMEAR_FLAT, SMEAR_TALL = 7.0, 2.4  # points over which its darkness is averaged, so that noise does not break it; a
# standing one is averaged over less than the gap between two lines, else letters below each other became one
CONTRAST = 0.12  # of the way from paper to ink, by which a stroke is darker than what lies beside it
LETTERS = 0.2  # of a line's box at its top and bottom, where few letters are: rules of narrow rows reach into it
COVERED = 0.6  # share of a lying stroke inside lines of text, from which it is made of letters
MAX_STROKES = 2000

Box = tuple[float, float, float, float]


def picture_strokes(picture: Image.Image, read: OcrPage) -> tuple[Stroke, ...]:
    """Strokes of a page in points.

    On a page that is turned by some degrees each lies or stands straight, with its middle where it is on the page:
    `layout.turned.Frame` puts them at their place among the upright words.

    Args:
        picture: the page's, at the resolution at which it was read.
        read: what was read of it.
    """
    import cv2

    skew = skew_of(read.lines)
    grey_HW = np.asarray(picture.convert("L"))
    height, width = grey_HW.shape
    centre = (width / 2, height / 2)
    turn = cv2.getRotationMatrix2D(centre, skew, 1.0)
    ink, paper = (float(v) for v in np.percentile(grey_HW, (0.5, 90)))
    upright_HW = cv2.warpAffine(grey_HW, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=int(paper))
    level = CONTRAST * (paper - ink)
    boxes = [_upright_box(line.corners, centre, skew, read.scale) for line in read.lines]
    flat = [s for s in _runs(upright_HW, level, read.scale, MIN_FLAT, SMEAR_FLAT) if not _of_letters(s, boxes)]
    tall = [Stroke(s.y0, s.x0, s.y1, s.x1) for s in _runs(upright_HW.T, level, read.scale, MIN_TALL, SMEAR_TALL)]
    kept = [*flat, *(s for s in tall if not any(_within(s, box) for box in boxes))]
    if len(kept) > MAX_STROKES:
        return ()
    return tuple(_shown(s, centre, skew, read.scale) for s in kept)


def _runs(grey_HW: np.ndarray, level: float, scale: float, min_points: float, smear_points: float) -> list[Stroke]:
    """Lying strokes of a picture: thin runs of what is darker than the paper above and below."""
    import cv2

    across, length = max(3, round(MAX_THICK * scale)), round(min_points * scale)
    smear = max(3, round(smear_points * scale))
    darker_HW = cv2.morphologyEx(np.ascontiguousarray(grey_HW), cv2.MORPH_BLACKHAT, np.ones((across, 1), np.uint8))
    runs_HW = (cv2.blur(darker_HW, (smear, 1)) > level).astype(np.uint8)
    long_HW = cv2.morphologyEx(runs_HW, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    # the skew is known to a hundredth of a degree or so: a long stroke may still climb by a pixel
    count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(long_HW, np.ones((3, 3), np.uint8)))
    found = []
    for k in range(1, min(count, 4 * MAX_STROKES)):
        x, y, w, h = (int(v) for v in stats[k, :4])
        if h - 2 <= 2 * across:
            middle, end = (y + h / 2) / scale, (x + w - 1) / scale
            found.append(Stroke((x + 1) / scale, middle, end, middle))
    return found


def _of_letters(stroke: Stroke, boxes: list[Box]) -> bool:
    """Whether a lying stroke is a row of letters' parts, smeared into one."""
    inside = 0.0
    for x0, y0, x1, y1 in boxes:
        margin = LETTERS * (y1 - y0)
        if y0 + margin < stroke.y0 < y1 - margin:
            inside += max(0.0, min(x1, stroke.x1) - max(x0, stroke.x0))
    return inside > COVERED * (stroke.x1 - stroke.x0)


def _upright_box(
    corners: tuple[tuple[float, float], ...], centre: tuple[float, float], skew: float, scale: float
) -> Box:
    cos, sin = math.cos(math.radians(skew)), math.sin(math.radians(skew))
    xs = [centre[0] + (x - centre[0]) * cos + (y - centre[1]) * sin for x, y in corners]
    ys = [centre[1] - (x - centre[0]) * sin + (y - centre[1]) * cos for x, y in corners]
    return min(xs) / scale, min(ys) / scale, max(xs) / scale, max(ys) / scale


def _within(stroke: Stroke, box: Box) -> bool:
    """Whether an upright stroke is part of a letter: it does not reach beyond its line."""
    return box[0] <= stroke.x0 <= box[2] and stroke.y0 >= box[1] - 1 and stroke.y1 <= box[3] + 1


def _shown(stroke: Stroke, centre: tuple[float, float], skew: float, scale: float) -> Stroke:
    cos, sin = math.cos(math.radians(skew)), math.sin(math.radians(skew))
    x, y = (stroke.x0 + stroke.x1) / 2 - centre[0] / scale, (stroke.y0 + stroke.y1) / 2 - centre[1] / scale
    dx, dy = x * cos - y * sin - x, x * sin + y * cos - y
    return Stroke(stroke.x0 + dx, stroke.y0 + dy, stroke.x1 + dx, stroke.y1 + dy)
