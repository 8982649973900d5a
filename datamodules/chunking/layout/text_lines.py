"""Lines of text from words: fragments that a column's gutter or a table's gap parts, and their reading order."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..words import SOFT_HYPHEN, Word

PIECE_GAP = 1.15  # of the type size: a wider gap ends a fragment
MIN_COLUMN_ITEMS = 4
MAX_CROSSING = 0.35  # share of items that may cross a gutter, such as titles and wide figures
MIN_FILL = 0.45  # of a column's width: median width of its fragments; less is a table's column
COARSE_POINTS = 2.0
MAX_NAMES = 0.6  # of the right side's width: a left side as narrow as this may be the names of a table's rows
MIN_NAMES_LEVEL = 0.6  # of its lines that stand level with one at the right
MAX_LEVEL = 0.8  # of the left lines level with one at the right: more is one table over the whole width
LEVEL_POINTS = 0.6
MAX_CHANCE = 0.15  # of the left lines level with one at the right: as many are by chance
MANY_LINES = 12
MAX_BESIDE = 0.4  # of the left lines level with one at the right: text beside a table


@dataclass(frozen=True)
class Region:
    """A box in points from the page's top left."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, parts: Iterable[Region | Word | Piece | TextLine]) -> Region:
        """The smallest box around parts, of which there is at least one."""
        held = list(parts)
        low_x, low_y = min(p.x0 for p in held), min(p.y0 for p in held)
        return cls(low_x, low_y, max(p.x1 for p in held), max(p.y1 for p in held))

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1


@dataclass(frozen=True)
class Piece:
    """Words that stand close together on one line; or, without words, something else that has a place (`index`)."""

    x0: float
    y0: float
    x1: float
    y1: float
    words: tuple[Word, ...] = ()
    index: int = -1

    @property
    def text(self) -> str:
        """Its words, parted by spaces."""
        return " ".join(w.text for w in self.words)


@dataclass(frozen=True)
class TextLine:
    """A line of one column: pieces from left to right, more than one where wide gaps part them."""

    x0: float
    y0: float
    x1: float
    y1: float
    pieces: tuple[Piece, ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """Its words from left to right."""
        return tuple(w for p in self.pieces for w in p.words)

    @property
    def text(self) -> str:
        """Its words, parted by spaces."""
        return " ".join(p.text for p in self.pieces)

    @property
    def size(self) -> float:
        """Type size of most of its characters."""
        return statistics.median_high([w.size for w in self.words for _ in w.text])

    @property
    def bold(self) -> bool:
        """Whether nearly all of it is bold."""
        letters = [w.bold for w in self.words for _ in w.text]
        return sum(letters) >= 0.9 * len(letters)


def pieces_of(words: Sequence[Word]) -> list[Piece]:
    """Pieces of a page's words: first as the layer gives them, then joined where it gives a line in parts."""
    runs: list[list[Word]] = []
    for word in words:
        if runs and _adjoins(runs[-1], word):
            runs[-1].append(word)
        else:
            runs.append([word])
    runs.sort(key=lambda run: (run[0].y0, run[0].x0))
    joined: list[list[Word]] = []
    boxes: list[Region] = []
    for run in runs:
        box = Region.around(run)
        recent = range(len(joined) - 1, max(-1, len(joined) - 25), -1)
        near = next((k for k in recent if _touch(boxes[k], joined[k][0].size, box, run[0].size)), None)
        if near is None:
            joined.append(run)
            boxes.append(box)
        else:
            joined[near] = sorted([*joined[near], *run], key=lambda w: w.x0)
            boxes[near] = Region.around([boxes[near], box])
    return [_piece(run) for run in joined]


def _adjoins(run: list[Word], word: Word) -> bool:
    last = run[-1]
    gap = word.x0 - last.x1
    return _same_line(last, word) and -0.3 * word.size <= gap <= PIECE_GAP * max(min(last.size, word.size), 4.0)


def _touch(a: Region, first_size: float, b: Region, second_size: float) -> bool:
    size = max(min(first_size, second_size), 4.0)
    gap = max(b.x0 - a.x1, a.x0 - b.x1)
    return -0.3 * size <= gap <= PIECE_GAP * size and _same_line(a, b)


def _same_line(a: Region | Word, b: Region | Word) -> bool:
    shared = min(a.y1, b.y1) - max(a.y0, b.y0)
    return shared > 0.5 * min(a.y1 - a.y0, b.y1 - b.y0)


def _piece(run: list[Word]) -> Piece:
    box = Region.around(run)
    return Piece(box.x0, box.y0, box.x1, box.y1, tuple(run))


def in_reading_order(pieces: Sequence[Piece], hidden: float | None = None) -> list[list[Piece]]:
    """Pieces in columns: each list is one stretch of one column, in the order in which it is read.

    A gutter is where few pieces cross and both sides are filled with text; what crosses it (titles, wide tables) parts
    the page into zones, and in each zone the columns are read from left to right.

    Args:
        pieces: of a page.
        hidden: a gutter known from other pages (gutters.py), taken where the pieces show none.
    """
    if not pieces:
        return []
    gutter = gutter_of(pieces)
    gutter = hidden if gutter is None else gutter
    if gutter is None:
        return [sorted(pieces, key=lambda p: (p.y0, p.x0))]
    across = [p for p in pieces if p.x0 < gutter < p.x1]
    across += [p for p in pieces if p.x1 <= gutter and any(_ends(p, c, pieces) for c in across)]
    crossing = sorted(across, key=lambda p: p.y0)
    whole = {id(p) for p in across}
    rest = [p for p in pieces if id(p) not in whole]
    stretches: list[list[Piece]] = []
    for start, cross in zip([None, *crossing], [*crossing, None], strict=True):
        low = (start.y0 + start.y1) / 2 if start else float("-inf")
        high = (cross.y0 + cross.y1) / 2 if cross else float("inf")
        zone = [p for p in rest if low <= (p.y0 + p.y1) / 2 < high]
        left, right = [p for p in zone if p.x1 <= gutter], [p for p in zone if p.x0 >= gutter]
        parts = [*in_reading_order(left), *in_reading_order(right)]
        stretches += parts
        if cross:
            stretches.append([cross])
    return _runs_joined(stretches)


def _runs_joined(stretches: list[list[Piece]]) -> list[list[Piece]]:
    """Single crossing pieces that follow each other, as the lines of a wide paragraph do, become one stretch."""
    joined: list[list[Piece]] = []
    for stretch in stretches:
        if joined and len(stretch) == 1 and _wide_pair(joined[-1][-1], stretch[0]):
            joined[-1].append(stretch[0])
        else:
            joined.append(list(stretch))
    return joined


def _ends(last: Piece, line: Piece, pieces: Sequence[Piece]) -> bool:
    """Whether a piece is the short last line of what a wide line begins, such as a title: alone at its height."""
    height = line.y1 - line.y0
    below = abs(last.x0 - line.x0) < 1.0 and 0 <= last.y0 - line.y1 < 0.6 * height
    if not (last.words and line.words and below and abs(last.y1 - last.y0 - height) < 0.1 * height):
        return False
    return not any(p is not last and p.y0 < last.y1 and p.y1 > last.y0 for p in pieces)


def _wide_pair(a: Piece, b: Piece) -> bool:
    shared = min(a.x1, b.x1) - max(a.x0, b.x0)
    return b.y0 >= a.y0 and b.y0 - a.y1 < 1.5 * (b.y1 - b.y0) and shared > 0.5 * min(a.x1 - a.x0, b.x1 - b.x0)


def gutter_of(pieces: Sequence[Piece], one_filled: bool = False) -> float | None:
    """Where two columns of text part; None where there is one column, or none is filled with text.

    Args:
        pieces: of a page.
        one_filled: whether text in one of them is enough, where its lines are not level with the other's.
    """
    if len(pieces) < 2 * MIN_COLUMN_ITEMS:
        return None
    box = Region.around(pieces)
    width = box.x1 - box.x0
    best: tuple[float, float] | None = None
    position = box.x0 + 0.12 * width
    while position < box.x1 - 0.12 * width:
        left = [p for p in pieces if p.x1 <= position]
        right = [p for p in pieces if p.x0 >= position]
        crossing = len(pieces) - len(left) - len(right)
        if (
            len(left) >= MIN_COLUMN_ITEMS
            and len(right) >= MIN_COLUMN_ITEMS
            and crossing <= MAX_CROSSING * len(pieces)
            and _side_by_side(left, right)
            and ((_filled(left) and _filled(right)) or (one_filled and _text_beside(left, right)))
            and not _names_of_rows(left, right)
        ):
            clear = min(p.x0 for p in right) - max(p.x1 for p in left)
            score = crossing - 0.01 * clear
            if best is None or score < best[0]:
                best = (score, position)
        position += COARSE_POINTS
    return best[1] if best else None


def _side_by_side(left: list[Piece], right: list[Piece]) -> bool:
    a, b = Region.around(left), Region.around(right)
    shared = min(a.y1, b.y1) - max(a.y0, b.y0)
    return shared > 0.3 * min(a.y1 - a.y0, b.y1 - b.y0)


def _text_beside(left: list[Piece], right: list[Piece]) -> bool:
    """Whether one side is text and the other something else that was set without regard to its lines.

    Where both are half tables, many lines have to stand at no height of the other side's.
    """
    widths = [Region.around(side).x1 - Region.around(side).x0 for side in (left, right)]
    if min(widths) <= MIN_FILL * max(widths):
        return False
    level = share_level(left, right)
    apart = level < MAX_CHANCE and min(len(lines_of(left)), len(lines_of(right))) >= MANY_LINES
    return apart or (level < MAX_BESIDE and (_filled(left) or _filled(right)))


def _names_of_rows(left: list[Piece], right: list[Piece]) -> bool:
    """Whether the left side is the narrow first column of a table: each of its lines has one level with it."""
    a, b = Region.around(left), Region.around(right)
    return a.x1 - a.x0 < MAX_NAMES * (b.x1 - b.x0) and share_level(left, right) > MIN_NAMES_LEVEL


def share_level(left: Sequence[Piece], right: Sequence[Piece]) -> float:
    """Share of lines at the left that stand level with one at the right, of those beside any."""
    heights = [line.y1 for line in lines_of(right)]
    box = Region.around(right)
    beside = [line.y1 for line in lines_of(left) if box.y0 <= line.y1 <= box.y1 + LEVEL_POINTS]
    return sum(any(abs(y - h) <= LEVEL_POINTS for h in heights) for y in beside) / max(1, len(beside))


def _filled(side: list[Piece]) -> bool:
    box = Region.around(side)
    widths = [p.x1 - p.x0 for p in side]
    words = statistics.median(len(p.words) or 8 for p in side)
    return statistics.median(widths) > MIN_FILL * (box.x1 - box.x0) and words >= 3


def lines_of(stretch: Sequence[Piece]) -> list[TextLine]:
    """Lines of one stretch of a column, from top to bottom."""
    rows: list[list[Piece]] = []
    for piece in sorted(stretch, key=lambda p: ((p.y0 + p.y1) / 2, p.x0)):
        if rows and _same_line(_widest(rows[-1]), Region(piece.x0, piece.y0, piece.x1, piece.y1)):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    found = []
    for row in rows:
        row.sort(key=lambda p: p.x0)
        box = Region.around(row)
        found.append(TextLine(box.x0, box.y0, box.x1, box.y1, tuple(row)))
    return found


def _widest(row: list[Piece]) -> Region:
    piece = max(row, key=lambda p: p.x1 - p.x0)
    return Region(piece.x0, piece.y0, piece.x1, piece.y1)


def join_lines(texts: Iterable[str]) -> str:
    """Lines of a paragraph as one: a word that a hyphen cuts at a line's end is made whole."""
    whole = ""
    for text in texts:
        whole = whole[:-1] + text if whole.endswith(SOFT_HYPHEN) else f"{whole} {text}".lstrip()
    return whole.replace(SOFT_HYPHEN, "-") if whole.endswith(SOFT_HYPHEN) else whole.replace(SOFT_HYPHEN, "")
