"""Pages whose text is turned, such as a wide table set sideways: read in a frame in which the text is upright."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..strokes import Stroke
from ..words import Word
from .text_lines import Region


@dataclass(frozen=True)
class Frame:
    """A quarter turn between the shown page and the frame in which its text is upright.

    Attributes:
        turn: degrees by which the text is turned on the shown page: 0, 90, 180 or -90.
        width: of the shown page, in points.
        height: of the shown page, in points.
    """

    turn: int
    width: float
    height: float

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
        return cls(max(turns, key=lambda t: (turns[t], t == 0)) if turns else 0, width, height)

    def upright(self, words: Sequence[Word]) -> list[Word]:
        """Words of this frame's direction at their place in it; others are left out."""
        found = []
        for word in words:
            angle = (word.angle - self.turn + 180) % 360 - 180
            r = self.into(Region(word.x0, word.y0, word.x1, word.y1))
            turned = dataclasses.replace(word, x0=r.x0, y0=r.y0, x1=r.x1, y1=r.y1, angle=angle)
            if turned.upright:
                found.append(turned)
        return found

    def strokes(self, strokes: Sequence[Stroke]) -> list[Stroke]:
        """Strokes at their place in the frame."""
        placed = [self.into(Region(s.x0, s.y0, s.x1, s.y1)) for s in strokes]
        return [Stroke(r.x0, r.y0, r.x1, r.y1) for r in placed]

    def shown(self, region: Region) -> Region:
        """A region of the frame at its place on the shown page."""
        w, h = self.width, self.height
        x0, y0, x1, y1 = region.x0, region.y0, region.x1, region.y1
        if self.turn == 90:
            return Region(w - y1, x0, w - y0, x1)
        if self.turn == -90:
            return Region(y0, h - x1, y1, h - x0)
        return Region(w - x1, h - y1, w - x0, h - y0) if self.turn else region

    def into(self, region: Region) -> Region:
        """A region of the shown page at its place in the frame."""
        w, h = self.width, self.height
        x0, y0, x1, y1 = region.x0, region.y0, region.x1, region.y1
        if self.turn == 90:
            return Region(y0, w - x1, y1, w - x0)
        if self.turn == -90:
            return Region(h - y1, x0, h - y0, x1)
        return Region(w - x1, h - y1, w - x0, h - y0) if self.turn else region
