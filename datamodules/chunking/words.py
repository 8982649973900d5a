"""Words of a page's text layer with their boxes, in the layer's order."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from .pages import Glyphs, Page

UPRIGHT_DEGREES = 10.0
SPACE_SHARE = 0.35  # of the type size: a wider gap parts two words even without a space
SOFT_HYPHEN = "\N{SOFT HYPHEN}"


@dataclass(frozen=True)
class Word:
    """A run of glyphs without a space.

    Attributes:
        text: its characters; a hyphen at a line's end, where the word is cut, is U+00AD.
        x0: left, in points; y0 top, x1 right and y1 bottom likewise.
        size: type size in points.
        bold: whether it is set in bold.
        angle: reading direction in degrees, 0 for upright text.
    """

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    bold: bool
    angle: float = 0.0

    @property
    def upright(self) -> bool:
        """Whether it reads from left to right."""
        return abs(self.angle) <= UPRIGHT_DEGREES

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


def words_of(page: Page) -> list[Word]:
    """Words of a page that lie on it at least in part; what runs over its edge is cut off there."""
    found = []
    for word in split_words(page.glyphs):
        x0, y0, x1, y1 = max(word.x0, 0.0), max(word.y0, 0.0), min(word.x1, page.width), min(word.y1, page.height)
        if x1 > x0 and y1 > y0:
            whole = (x0, y0, x1, y1) == (word.x0, word.y0, word.x1, word.y1)
            found.append(word if whole else dataclasses.replace(word, x0=x0, y0=y0, x1=x1, y1=y1))
    return found


def split_words(glyphs: Glyphs) -> list[Word]:
    """Words of a run of glyphs: parted by spaces, by a gap, and where the line or the direction changes."""
    found: list[Word] = []
    start = -1
    boxes, sizes, bold, angles = glyphs.boxes.tolist(), glyphs.sizes.tolist(), glyphs.bold.tolist(), glyphs.angles
    for k, character in enumerate(glyphs.text):
        blank = character.isspace() or character == "\N{NO-BREAK SPACE}" or not character.isprintable()
        if character == SOFT_HYPHEN:
            blank = False
        if start >= 0 and (blank or _parted(boxes[k - 1], boxes[k], sizes[k], float(angles[k - 1] - angles[k]))):
            _add(glyphs.text[start:k], boxes[start:k], sizes[start], bold[start], float(angles[start]), found)
            start = -1
        if start < 0 and not blank:
            start = k
    if start >= 0:
        _add(glyphs.text[start:], boxes[start:], sizes[start], bold[start], float(angles[start]), found)
    return found


def _parted(before: list[float], box: list[float], size: float, turned: float) -> bool:
    if abs(turned) > 1.0:
        return True
    height = max(min(box[3] - box[1], before[3] - before[1]), 0.1)
    if min(box[3], before[3]) - max(box[1], before[1]) < 0.2 * height and box[2] - box[0] > 0:
        return abs(box[0] - before[0]) > 0.1 and box[3] - box[1] < 3 * size
    gap = box[0] - before[2]
    return gap > SPACE_SHARE * max(size, 1.0) or gap < -3 * max(size, 1.0)


def _add(text: str, boxes: list[list[float]], size: float, bold: bool, angle: float, found: list[Word]) -> None:
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[2] for b in boxes), max(b[3] for b in boxes)
    if math.isfinite(x0 + y0 + x1 + y1):
        found.append(Word(text, x0, y0, x1, y1, size, bold, angle))
