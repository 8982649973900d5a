"""A table from lines that the trained chunker calls header and rows: where its columns lie, and what is in its cells.

Columns are told from the white between words that all rows leave free, so that they are found where a narrow gap parts
them, and where cells have several lines.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ....datamodules.chunking.layout.tables import Row, Table
from ....datamodules.chunking.layout.text_lines import Piece, Region, TextLine, join_lines
from ....datamodules.chunking.layout.turned import Frame
from ....datamodules.chunking.strokes import Stroke
from ....datamodules.chunking.words import Word

MAX_COLUMNS = 20
GAPS = (1.6, 1.3, 1.0, 0.8, 0.65, 0.5)  # of the type size: how wide the white between columns may be asked to be
NARROW = (0.35, 0.2, 0.1)  # asked for only where the header, or the open table, tells how many columns there are
CLEAR = 0.7  # of the type size: no space between words is so wide, in all rows and between names of the header
MANY_LINES = 6  # from so many lines on, a narrow white that all leave free is a column's
_ATTACHED = re.compile(r"[$€£%)(]+")
Span = tuple[float, float]


@dataclass(frozen=True)
class JudgedLine:
    """A line with what is thought of it: whether it belongs to the header, and whether it begins a row."""

    line: TextLine
    header: bool
    begins: bool


def line_table(judged: Sequence[JudgedLine], frame: Frame, strokes: Sequence[Stroke], num_columns: int) -> Table | None:
    """The table that lines make; None if no two columns are found.

    Args:
        judged: its lines from top to bottom, of which the header's come first.
        frame: of the page.
        strokes: of the page, upright; a rule under a header's cell tells over which columns it stands.
        num_columns: of the table that is open; taken if the lines can be cut into so many, 0 for none.
    """
    body = [j.line for j in judged if not j.header]
    head = [j.line for j in judged if j.header]
    if not body:
        return None
    columns = _columns(body, head, num_columns)
    if not 2 <= len(columns) <= MAX_COLUMNS:
        return None
    wide = _widened(columns, head[-1]) if head else columns
    rows = [
        _header_row(line, wide if line is not head[-1] else columns, frame, strokes, line is not head[-1])
        for line in head
    ]
    group: list[TextLine] = []
    groups: list[list[TextLine]] = []
    for j in judged:
        if j.header:
            continue
        if j.begins or not groups:
            group = []
            groups.append(group)
        group.append(j.line)
    rows += [_row(lines, columns, frame) for lines in groups]
    lines = [j.line for j in judged]
    return Table(frame.shown(Region.around(lines)), tuple(rows), len(head), ruled=False, lines=tuple(lines))


def _columns(body: Sequence[TextLine], head: Sequence[TextLine], num_columns: int) -> list[Span]:
    size = statistics.median(line.size for line in [*body, *head])
    allowed = GAPS if len(body) >= MANY_LINES or num_columns else GAPS[:3]
    by_gap = [_free_of_words(body, gap * size) for gap in allowed]
    narrow = [_free_of_words(body, gap * size) for gap in NARROW] if len(body) > 1 else []
    if num_columns and not head:
        for columns in (*by_gap, *narrow):
            if len(columns) == num_columns:
                return columns
    usual = by_gap[3] if len(by_gap) > 3 else by_gap[-1]
    if head:
        # the header tells how many columns there are, where its own cells stand apart; most rows, that there are more
        counts = [len(line.pieces) for line in body if len(line.pieces) > 1]
        usual = _as_many(max(len(line.pieces) for line in head), (*by_gap, *narrow)) or usual
        if counts and statistics.mode(counts) > len(usual):
            usual = _as_many(statistics.mode(counts), (*by_gap, *narrow)) or usual
        clear = _free_of_words([*body, head[-1]], CLEAR * size)
        if len(clear) > len(usual) and all(any(a <= w.x0 <= b for w in head[-1].words) for a, b in clear):
            return clear
        joint = _free_of_words([*body, *(line for line in head if len(line.pieces) == len(usual))], 0.3 * size)
        if len(joint) == len(usual):
            return joint
    return usual


def _as_many(count: int, found: Sequence[list[Span]]) -> list[Span] | None:
    """The first of several ways to cut lines into columns that gives so many."""
    return next((columns for columns in found if len(columns) == count), None)


def _free_of_words(lines: Sequence[TextLine], gap: float) -> list[Span]:
    spans: list[list[float]] = []
    words = [w for line in lines for w in line.words if not _ATTACHED.fullmatch(w.text)]
    for word in sorted(words, key=lambda w: w.x0):
        if spans and word.x0 <= spans[-1][1] + gap:
            spans[-1][1] = max(spans[-1][1], word.x1)
        else:
            spans.append([word.x0, word.x1])
    return [(a, b) for a, b in spans]


def _widened(columns: Sequence[Span], line: TextLine) -> list[Span]:
    """Columns with the words of the header's last line, which are often wider than what stands below them."""
    spans = [list(c) for c in columns]
    for word in line.words:
        span = spans[_nearest(word.x0, word.x1, columns)]
        span[0], span[1] = min(span[0], word.x0), max(span[1], word.x1)
    return [(a, b) for a, b in spans]


def _nearest(x0: float, x1: float, columns: Sequence[Span]) -> int:
    def miss(k: int) -> tuple[float, float]:
        a, b = columns[k]
        return -max(0.0, min(b, x1) - max(a, x0)), abs((a + b) / 2 - (x0 + x1) / 2)

    return min(range(len(columns)), key=miss)


def _row(lines: Sequence[TextLine], columns: Sequence[Span], frame: Frame) -> Row:
    cells: list[list[str]] = [[] for _ in columns]
    for line in lines:
        held: dict[int, list[Word]] = {}
        for word in line.words:
            held.setdefault(_nearest(word.x0, word.x1, columns), []).append(word)
        for column, words in held.items():
            cells[column].append(" ".join(w.text for w in words))
    region = frame.shown(Region.around(lines))
    return Row(tuple(join_lines(c) for c in cells), region, all(line.bold for line in lines), False)


def _header_row(line: TextLine, columns: Sequence[Span], frame: Frame, strokes: Sequence[Stroke], grouped: bool) -> Row:
    cells: list[list[str]] = [[] for _ in columns]
    spans = False
    for piece in line.pieces:
        over = _covered(piece, columns)
        if len(over) > 1 and len(piece.words) > 1 and not grouped:
            for word in piece.words:  # cells so near that they read as one
                cells[_nearest(word.x0, word.x1, columns)].append(word.text)
            continue
        if grouped and len(line.pieces) < len(columns):
            over = _group(piece, line, columns, strokes) or over
        over = over or [_nearest(piece.x0, piece.x1, columns)]
        spans |= len(over) > 1
        for k in over:
            cells[k].append(piece.text)
    region = frame.shown(Region(line.x0, line.y0, line.x1, line.y1))
    return Row(tuple(" ".join(c) for c in cells), region, line.bold, spans)


def _covered(piece: Piece, columns: Sequence[Span]) -> list[int]:
    def covers(a: float, b: float) -> bool:
        return min(b, piece.x1) - max(a, piece.x0) > 0.25 * min(b - a, piece.x1 - piece.x0)

    return [k for k, (a, b) in enumerate(columns) if covers(a, b)]


def _group(piece: Piece, line: TextLine, columns: Sequence[Span], strokes: Sequence[Stroke]) -> list[int]:
    """Columns under a heading of several: those over which the rule below it stands, or in whose middle it is set."""
    whole = columns[-1][1] - columns[0][0]
    for stroke in strokes:
        under = line.y0 < stroke.y0 < line.y1 + 0.6 * line.size and stroke.x0 <= piece.x0 and piece.x1 <= stroke.x1
        if stroke.horizontal and under and stroke.x1 - stroke.x0 < 0.95 * whole:
            return [k for k, (a, b) in enumerate(columns) if stroke.x0 - 2 <= (a + b) / 2 <= stroke.x1 + 2]
    middle = (piece.x0 + piece.x1) / 2
    best: list[int] = []
    for first in range(len(columns)):
        for last in range(first + 1, len(columns)):
            centre = (columns[first][0] + columns[last][1]) / 2
            if abs(centre - middle) < line.size and (not best or last - first + 1 < len(best)):
                best = list(range(first, last + 1))
    return best
