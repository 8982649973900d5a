"""Small marks that a text detector passes over: a digit alone in a table's cell, a bullet before an item.

Axis legend: H pixels down, W pixels across, C colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BOX_OF_EM = 1.28  # height of a detected line's box, in type sizes: the detector leaves a margin
LONG = 2.2  # type sizes: a straight stroke longer than this is a rule
HEIGHTS = (0.35, 1.3)  # type sizes: of what may be a character
WIDTHS = (0.17, 3.0)  # a piece of a rule is narrower than a digit one
BULLET_HEIGHTS = (0.05, 0.8)  # of what stands left of a line
BULLET_WIDTHS = (0.12, 1.0)
BULLET_GAP = 3.0
MARGIN = 0.3  # type sizes around a crop
MAX_MARKS = 250  # of one page; more is a drawing or dirt

Corners = tuple[tuple[float, float], ...]


def lone_marks(bgr_HWC: np.ndarray, boxes: Sequence[Corners]) -> tuple[list[np.ndarray], list[Corners]]:
    """Crops of what looks like characters outside the detected boxes, with the corners of each.

    Args:
        bgr_HWC: picture, uint8.
        boxes: of the lines that were detected; without any there is no scale, and nothing is found.
    """
    import cv2

    if not boxes:
        return [], []
    heights = [float(np.hypot(b[3][0] - b[0][0], b[3][1] - b[0][1])) for b in boxes]
    em = float(np.median(heights)) / BOX_OF_EM
    grey_HW = cv2.cvtColor(bgr_HWC, cv2.COLOR_BGR2GRAY)
    _, ink_HW = cv2.threshold(grey_HW, 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    rules_HW = _rules(ink_HW, em)
    ink_HW = cv2.subtract(ink_HW, rules_HW)
    beside_HW = cv2.dilate(rules_HW, np.ones((3, 3), np.uint8)) > 0  # what touches a rule is a rest of it
    for box in boxes:
        cv2.fillPoly(ink_HW, [np.asarray(box, np.float32).round().astype(np.int32)], 0)
    joined_HW = cv2.dilate(ink_HW, np.ones((max(1, round(0.12 * em)), max(1, round(0.3 * em))), np.uint8))
    count, label_HW, stats, _ = cv2.connectedComponentsWithStats(joined_HW, connectivity=8)
    crops: list[np.ndarray] = []
    corners: list[Corners] = []
    for k in range(1, count):
        x, y, w, h = (int(v) for v in stats[k, :4])
        own = (label_HW[y : y + h, x : x + w] == k) & (ink_HW[y : y + h, x : x + w] > 0)
        ys, xs = np.nonzero(own)
        if not len(xs) or bool((own & beside_HW[y : y + h, x : x + w]).any()):
            continue
        x0, y0, x1, y1 = x + xs.min(), y + ys.min(), x + xs.max() + 1, y + ys.max() + 1
        width, height = (x1 - x0) / em, (y1 - y0) / em
        character = HEIGHTS[0] <= height <= HEIGHTS[1] and WIDTHS[0] <= width <= WIDTHS[1]
        bullet = BULLET_HEIGHTS[0] <= height <= BULLET_HEIGHTS[1] and BULLET_WIDTHS[0] <= width <= BULLET_WIDTHS[1]
        if not character and not (bullet and _before_a_line(x1, (y0 + y1) / 2, boxes, em)):
            continue
        middle, half = (y0 + y1) / 2, max((y1 - y0) / 2 + MARGIN * em, BOX_OF_EM * em / 2)
        left, right = max(0, round(x0 - MARGIN * em)), min(grey_HW.shape[1], round(x1 + MARGIN * em))
        top, bottom = max(0, round(middle - half)), min(grey_HW.shape[0], round(middle + half))
        crops.append(bgr_HWC[top:bottom, left:right])
        corners.append(((left, top), (right, top), (right, bottom), (left, bottom)))
    return (crops, corners) if len(crops) <= MAX_MARKS else ([], [])


def _rules(ink_HW: np.ndarray, em: float) -> np.ndarray:
    import cv2

    length = max(12, round(LONG * em))
    flat = cv2.morphologyEx(ink_HW, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    tall = cv2.morphologyEx(ink_HW, cv2.MORPH_OPEN, np.ones((length, 1), np.uint8))
    return np.asarray(cv2.dilate(cv2.max(flat, tall), np.ones((3, 3), np.uint8)))


def _before_a_line(right: float, middle: float, boxes: Sequence[Corners], em: float) -> bool:
    """Whether a line begins to the right of a mark, at its height."""
    return any(
        0 <= box[0][0] - right + 0.5 * em <= BULLET_GAP * em and box[0][1] <= middle <= box[3][1] for box in boxes
    )
