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
MIN_TALL = 9.0
MAX_THICK = 3.5
GAP = 1.5  # points of a stroke that blur and noise may break
INK = 0.3  # of the way from paper to the darkest: thin grey rules count
MAX_STROKES = 2000


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
    paper = float(np.percentile(grey_HW, 90))
    upright_HW = cv2.warpAffine(grey_HW, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=int(paper))
    level = paper - INK * (paper - float(np.percentile(grey_HW, 0.5)))
    ink_HW = (upright_HW < level).astype(np.uint8)
    found = [*_runs(ink_HW, read.scale, True), *_runs(ink_HW.T, read.scale, False)]
    text_boxes = [_upright_box(line.corners, centre, skew, read.scale) for line in read.lines]
    kept = [s for s in found if s.horizontal or not any(_within(s, box) for box in text_boxes)]
    if len(kept) > MAX_STROKES:
        return ()
    return tuple(_shown(s, centre, skew, read.scale) for s in kept)


def _runs(ink_HW: np.ndarray, scale: float, flat: bool) -> list[Stroke]:
    """Lying strokes of a picture; with `flat` false the picture is transposed, and they stand."""
    import cv2

    length = round((MIN_FLAT if flat else MIN_TALL) * scale)
    gap = max(1, round(GAP * scale))
    # the skew is known to a tenth of a degree or so: over a long stroke that is a pixel, which closing bridges
    closed = cv2.morphologyEx(np.ascontiguousarray(ink_HW), cv2.MORPH_CLOSE, np.ones((2, gap), np.uint8))
    runs = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    joined = cv2.dilate(runs, np.ones((3, gap), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    found = []
    for k in range(1, min(count, 4 * MAX_STROKES)):
        x, y, w, h = (int(v) for v in stats[k, :4])
        if (h - 2) / scale > MAX_THICK or w < length:
            continue  # a filled box, or a picture
        middle, start, end = (y + h / 2) / scale, (x + gap / 2) / scale, (x + w - gap / 2) / scale
        found.append(Stroke(start, middle, end, middle) if flat else Stroke(middle, start, middle, end))
    return found


def _upright_box(
    corners: tuple[tuple[float, float], ...], centre: tuple[float, float], skew: float, scale: float
) -> tuple[float, float, float, float]:
    cos, sin = math.cos(math.radians(skew)), math.sin(math.radians(skew))
    xs = [centre[0] + (x - centre[0]) * cos + (y - centre[1]) * sin for x, y in corners]
    ys = [centre[1] - (x - centre[0]) * sin + (y - centre[1]) * cos for x, y in corners]
    return min(xs) / scale, min(ys) / scale, max(xs) / scale, max(ys) / scale


def _within(stroke: Stroke, box: tuple[float, float, float, float]) -> bool:
    """Whether an upright stroke is part of a letter: it does not reach beyond its line."""
    return box[0] <= stroke.x0 <= box[2] and stroke.y0 >= box[1] - 1 and stroke.y1 <= box[3] + 1


def _shown(stroke: Stroke, centre: tuple[float, float], skew: float, scale: float) -> Stroke:
    cos, sin = math.cos(math.radians(skew)), math.sin(math.radians(skew))
    x, y = (stroke.x0 + stroke.x1) / 2 - centre[0] / scale, (stroke.y0 + stroke.y1) / 2 - centre[1] / scale
    dx, dy = x * cos - y * sin - x, x * sin + y * cos - y
    return Stroke(stroke.x0 + dx, stroke.y0 + dy, stroke.x1 + dx, stroke.y1 + dy)
