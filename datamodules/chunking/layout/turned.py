"""Pages whose text is turned, such as a wide table set sideways: read in a frame in which the text is upright.

A scan lies askew by some tenths of a degree besides: then words and strokes are moved with the page's turn about its
middle, each upright in itself.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..strokes import Stroke
from ..words import UPRIGHT_DEGREES, Word
from .text_lines import Region

MIN_SKEW = 0.05  # degrees: less moves a word at the page's edge by a quarter of a point


@dataclass(frozen=True)
class Frame:
    """A quarter turn and a skew between the shown page and the frame in which its text is upright.

    Attributes:
        turn: degrees by which the text is turned on the shown page: 0, 90, 180 or -90.
        width: of the shown page, in points.
        height: of the shown page, in points.
        skew: degrees, clockwise, by which the page lies askew besides.
    """

    turn: int
    width: float
    height: float
    skew: float = 0.0

    @property
    def upright_size(self) -> tuple[float, float]:
        """Width and height of the page in the frame, in points."""
        return (self.height, self.width) if self.turn in (90, -90) else (self.width, self.height)

    @classmethod
    def of(cls, words: Sequence[Word], width: float, height: float) -> Frame:
        """The frame of most of a page's characters."""
        turns: Counter[int] = Counter()
        for word in words:
            turns[(round(word.angle / 90) * 90 + 179) % 360 - 179] += len(word.text)
        turn = max(turns, key=lambda t: (turns[t], t == 0)) if turns else 0
        askew = [off for w in words if abs(off := (w.angle - turn + 180) % 360 - 180) <= UPRIGHT_DEGREES]
        skew = statistics.median(askew) if askew else 0.0
        return cls(turn, width, height, skew if abs(skew) >= MIN_SKEW else 0.0)

    def upright(self, words: Sequence[Word]) -> list[Word]:
        """Words of this frame's direction at their place in it; others are left out."""
        found = []
        for word in words:
            angle = (word.angle - self.turn - self.skew + 180) % 360 - 180
            r = self.into(self._slimmed(Region(word.x0, word.y0, word.x1, word.y1)))
            turned = dataclasses.replace(word, x0=r.x0, y0=r.y0, x1=r.x1, y1=r.y1, angle=angle)
            if turned.upright:
                found.append(turned)
        return found

    def strokes(self, strokes: Sequence[Stroke]) -> list[Stroke]:
        """Strokes at their place in the frame."""
        placed = [self.into(Region(s.x0, s.y0, s.x1, s.y1)) for s in strokes]
        return [Stroke(r.x0, r.y0, r.x1, r.y1) for r in placed]

    def shown(self, region: Region) -> Region:
        """A region of the frame at its place on the shown page; askew, the box around it there."""
        placed = self._turned_back(region)
        if not self.skew:
            return placed
        tan = math.tan(math.radians(abs(self.skew)))
        across, down = (placed.y1 - placed.y0) * tan / 2, (placed.x1 - placed.x0) * tan / 2
        return self._swung(
            Region(placed.x0 - across, placed.y0 - down, placed.x1 + across, placed.y1 + down), self.skew
        )

    def into(self, region: Region) -> Region:
        """A region of the shown page at its place in the frame; its middle is moved, its size is kept."""
        w, h = self.width, self.height
        region = self._swung(region, -self.skew)
        x0, y0, x1, y1 = region.x0, region.y0, region.x1, region.y1
        if self.turn == 90:
            return Region(y0, w - x1, y1, w - x0)
        if self.turn == -90:
            return Region(h - y1, x0, h - y0, x1)
        return Region(w - x1, h - y1, w - x0, h - y0) if self.turn else region

    def _swung(self, region: Region, degrees: float) -> Region:
        """A region with its middle turned about the page's, clockwise."""
        if not degrees:
            return region
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        x, y = (region.x0 + region.x1 - self.width) / 2, (region.y0 + region.y1 - self.height) / 2
        dx, dy = x * cos - y * sin - x, x * sin + y * cos - y
        return Region(region.x0 + dx, region.y0 + dy, region.x1 + dx, region.y1 + dy)

    def _slimmed(self, region: Region) -> Region:
        """A word's box without the height that it has from being turned: its letters stand on a slope."""
        if not self.skew:
            return region
        tan = math.tan(math.radians(abs(self.skew)))
        long, high = region.x1 - region.x0, region.y1 - region.y0
        across = min(high * tan, long / 2) / 2 if self.turn in (90, -90) else 0.0
        down = 0.0 if self.turn in (90, -90) else min(long * tan, high / 2) / 2
        return Region(region.x0 + across, region.y0 + down, region.x1 - across, region.y1 - down)

    def _turned_back(self, region: Region) -> Region:
        w, h = self.width, self.height
        x0, y0, x1, y1 = region.x0, region.y0, region.x1, region.y1
        if self.turn == 90:
            return Region(w - y1, x0, w - y0, x1)
        if self.turn == -90:
            return Region(y0, h - x1, y1, h - x0)
        return Region(w - x1, h - y1, w - x0, h - y0) if self.turn else region
