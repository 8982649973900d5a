"""Where a document's text columns part: told from pages of text, and kept for pages on which tables hide it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ..pages import Document
from ..words import words_of
from .text_lines import MAX_LEVEL, Piece, gutter_of, lines_of, pieces_of, share_level
from .turned import Frame

NUM_SAMPLED = 12
SAME = 6.0  # points by which pages of one document may differ
OFTEN = 0.1  # of the lines right of the gutter that begin at one place: the leftmost such place is their column's edge
CLEAR = 3.0  # points left of that edge
BEFORE, BEHIND = 5.0, 9.0  # points around the right column's edge in which its lines begin, cells set in
MIN_AT_EDGE = 0.6  # of the lines right of it, by their area
MAX_CROSSING = 0.15  # of the page's pieces
MIN_PIECES = 4
NARROWEST = 6.0  # points: a page number or a running line that ends nearer to the right column reaches into the gutter
_known: WeakKeyDictionary[Document, tuple[Gutter, ...]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Gutter:
    """White between two columns of text: `left` where the first ends, `right` where the second begins, in points."""

    left: float
    right: float

    @property
    def middle(self) -> float:
        """Between both, and clear of the right column, which has the sharper edge."""
        return min((self.left + self.right) / 2, self.right - CLEAR)


def document_gutters(document: Document) -> tuple[Gutter, ...]:
    """Gutters of a sample of a document's pages; the same for the same file."""
    if document not in _known:
        count = min(document.num_pages, NUM_SAMPLED)
        step = (document.num_pages - 1) / max(1, count - 1)
        numbers = sorted({1 + round(k * step) for k in range(count)})
        found = [g for g in (_of_page(document, number) for number in numbers) if g is not None]
        kept: list[Gutter] = []
        for gutter in found:
            same = next((k for k, held in enumerate(kept) if abs(gutter.right - held.right) < SAME), None)
            if same is None:
                kept.append(gutter)
            elif gutter.left > kept[same].left:  # a page of short lines does not show where the left column ends
                kept[same] = gutter
        _known[document] = tuple(kept)
    return _known[document]


def _of_page(document: Document, number: int) -> Gutter | None:
    page = document.page(number)
    found = words_of(page)
    pieces = pieces_of(Frame.of(found, page.width, page.height).upright(found))
    middle = gutter_of(pieces, one_filled=True)
    if middle is None:
        return None
    rights = [round(line.x0) for line in lines_of([p for p in pieces if p.x0 >= middle])]
    often = [x for x, count in Counter(rights).items() if count >= max(OFTEN * len(rights), 1)]
    if not often:  # lines that share no edge, such as centred ones, are no column
        return None
    right = float(min(often))
    ends = [p.x1 for p in pieces if p.x1 <= min(middle, right - NARROWEST)]
    return Gutter(max(ends), right) if ends else None


def hidden_gutter(pieces: Sequence[Piece], known: Sequence[Gutter]) -> float | None:
    """Where a page's columns part, if one of the document's gutters runs through it that its tables hide."""
    for gutter in known:
        left = [p for p in pieces if p.x1 <= gutter.middle]
        right = [p for p in pieces if p.x0 >= gutter.middle]
        crossing = len(pieces) - len(left) - len(right)
        if not (_enough(left) and _enough(right)) or crossing > MAX_CROSSING * len(pieces):
            continue
        lines = lines_of(right)
        areas = [(line.x1 - line.x0) * (line.y1 - line.y0) for line in lines]
        lows = [gutter.left if line.pieces[0].index >= 0 else gutter.right - BEFORE for line in lines]
        begins = [low <= line.x0 <= gutter.right + BEHIND for low, line in zip(lows, lines, strict=True)]
        if sum(itertools.compress(areas, begins)) < MIN_AT_EDGE * sum(areas):  # names in a drawing are small
            continue
        if share_level(left, right) <= MAX_LEVEL or _tables_beside(left, right):
            return gutter.middle
    return None


def _enough(side: Sequence[Piece]) -> bool:
    """Whether a side has enough on it to be a column: a table does by itself."""
    return len(side) >= MIN_PIECES or any(p.index >= 0 for p in side)


def _tables_beside(left: Sequence[Piece], right: Sequence[Piece]) -> bool:
    """Whether a table of one side stands beside a table of the other, each within its column."""
    here, there = ([p for p in side if p.index >= 0] for side in (left, right))
    return any(min(a.y1, b.y1) - max(a.y0, b.y0) > 0 for a in here for b in there)
