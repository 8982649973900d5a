"""From lines that were read off a picture to glyphs at their place on the page, as a text layer would give them.

A detected box tells a line's height only roughly (it depends on the letters in it), so the type sizes of a page are
gathered in groups, and all lines of a group have one size. Whether type is bold is not known, and told as not bold.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .ocr import OcrLine, OcrPage
from .pages import Glyphs

BOX_OF_EM = 1.28  # height of a detected line's box, in type sizes
EM_BOX = 1.2  # height of the glyphs' boxes, in type sizes, as text layers give them
SAME_SIZE = 0.16  # two neighbouring sizes that differ by less are one
MIN_LENGTH = 4.0  # of its height: a shorter line does not tell how the page is turned
MAX_SKEW = 10.0  # degrees
SOFT_HYPHEN = "\N{SOFT HYPHEN}"
_CUT = re.compile(r"[^\W\d_][-\u2010]$")


def glyphs_of(page: OcrPage) -> Glyphs:
    """Glyphs of a page in the order of lines from top to bottom, each line ended by a newline."""
    skew = skew_of(page.lines)
    lines = [line for line in page.lines if _is_upright(line, skew)]
    sizes = _sizes(lines, page.scale)
    # a hyphen at a line's end is marked as text layers mark it, so that the cut word is made whole
    lines = [replace(x, text=x.text[:-1] + SOFT_HYPHEN) if _CUT.search(x.text) else x for x in lines]
    order = sorted(range(len(lines)), key=lambda k: _middle(lines[k])[1])
    text: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    held: list[float] = []
    for k in order:
        for character, box in _characters(lines[k], sizes[k], page.scale, skew):
            text.append(character)
            boxes.append(box)
            held.append(sizes[k])
        text.append("\n")
        boxes.append(boxes[-1])
        held.append(sizes[k])
    count = len(text)
    return Glyphs(
        "".join(text),
        np.asarray(boxes, np.float32).reshape(count, 4),
        np.asarray(held, np.float32),
        np.zeros(count, bool),
        np.full(count, skew, np.float32),
    )


def skew_of(lines: Sequence[OcrLine]) -> float:
    """Degrees by which most of the text is turned, clockwise as one sees it; 0 where no line is long enough."""
    angles: list[float] = []
    for line in lines:
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = line.corners
        length, height = math.hypot(bx - ax, by - ay), math.hypot(dx - ax, dy - ay)
        if length >= MIN_LENGTH * height > 0:
            across, down = (bx - ax) + (cx - dx), (by - ay) + (cy - dy)
            angle = math.degrees(math.atan2(down, across))
            if abs(angle) <= MAX_SKEW:
                angles += [angle] * max(1, round(length / height))
    return round(statistics.median(angles), 2) if angles else 0.0


def _is_upright(line: OcrLine, skew: float) -> bool:
    """Whether a line reads as the page does; one of a margin's stamp is turned, or taller than wide."""
    (ax, ay), (bx, by), _, (dx, dy) = line.corners
    length, height = math.hypot(bx - ax, by - ay), math.hypot(dx - ax, dy - ay)
    if len(line.text) > 2 and height > 1.5 * length:
        return False
    return abs(math.degrees(math.atan2(by - ay, bx - ax)) - skew) <= 3 * MAX_SKEW


def _middle(line: OcrLine) -> tuple[float, float]:
    return sum(x for x, _ in line.corners) / 4, sum(y for _, y in line.corners) / 4


def _sizes(lines: Sequence[OcrLine], scale: float) -> list[float]:
    """Type size of each line in points, one for each group of like ones."""
    rough = []
    for line in lines:
        (ax, ay), _, _, (dx, dy) = line.corners
        rough.append(math.hypot(dx - ax, dy - ay) / scale / BOX_OF_EM)
    found = [0.0] * len(lines)
    rest = set(range(len(lines)))
    while rest:
        # the size with most characters around it first, so that the body's is one
        weight = {k: sum(len(lines[j].text) for j in rest if _near(rough[j], rough[k])) for k in rest}
        best = max(rest, key=lambda k: (weight[k], -k))
        group = [k for k in rest if _near(rough[k], rough[best])]
        values = [rough[k] for k in group for _ in lines[k].text]
        size = max(round(2 * statistics.median(values)) / 2, 1.0)
        for k in group:
            found[k] = size
        rest -= set(group)
    return found


def _near(a: float, b: float) -> bool:
    return abs(a - b) < SAME_SIZE * max(a, b)


def _characters(
    line: OcrLine, size: float, scale: float, skew: float
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Characters of a line with their boxes in points, upright ones around turned middles."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = line.corners
    start = np.array([(ax + dx) / 2, (ay + dy) / 2]) / scale
    end = np.array([(bx + cx) / 2, (by + cy) / 2]) / scale
    length = float(np.hypot(*(end - start)))
    cuts = [0.0, *((a + b) / 2 for a, b in zip(line.places, line.places[1:], strict=False)), 1.0]
    inset = min(0.14 * size / max(length, 1e-3), 0.2)  # the detector's margin at both ends
    cuts[0], cuts[-1] = min(inset, line.places[0]), max(1 - inset, line.places[-1])
    found = []
    for character, left, right in zip(line.text, cuts, cuts[1:], strict=False):
        x, y = start + (end - start) * (left + right) / 2
        half = max((right - left) * length / 2, 0.01)
        found.append((character, (x - half, y - EM_BOX * size / 2, x + half, y + EM_BOX * size / 2)))
    return found
