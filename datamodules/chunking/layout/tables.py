"""Ruled tables: strokes that cross make a grid, words fall into its cells."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..strokes import Stroke
from ..words import Word
from .text_lines import Region, TextLine, join_lines, lines_of, pieces_of

SNAP = 2.5  # points within which two strokes are one
TOUCH = 4.0  # points by which strokes may miss each other
MIN_COVER = 0.6  # of a cell's side, for a stroke to part two cells
MIN_COLUMNS = 2
DOUBLE_RULE = 8.0  # points: an empty column as narrow as this lies between two rules of a pair
MIN_UPRIGHT = 0.5  # share of the inner verticals that have to stand over most of the table's height
MAX_GRID = 4000  # cells; more is a drawing or graph paper
_NUMBER = re.compile(r"[(\-–—$€£+<>~]*\s*\d[\d.,:/]*\s*[%)€$]*")


@dataclass(frozen=True)
class Row:
    """A band of a table.

    Attributes:
        cells: text of each column; a cell that spans several is repeated in each of them.
        region: where it stands.
        bold: whether all its words are bold.
        spans: whether a cell spans columns.
    """

    cells: tuple[str, ...]
    region: Region
    bold: bool
    spans: bool


@dataclass(frozen=True)
class Table:
    """A table as it stands on one page.

    Attributes:
        region: where it stands.
        rows: its bands from top to bottom, header and all.
        num_header: how many of them look like its header; 0 where none does.
        title: text of a band above them that is one cell.
        ruled: whether strokes part its cells.
        lines: of one that no strokes part, the lines it was made of, in the frame in which its text is upright.
    """

    region: Region
    rows: tuple[Row, ...]
    num_header: int
    title: str = ""
    ruled: bool = True
    lines: tuple[TextLine, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """Cells of the header, those of several bands one under the other."""
        return stacked(self.rows[: self.num_header])


def stacked(rows: Sequence[Row]) -> tuple[str, ...]:
    """One row of cells from several: texts of a column joined, a repeated one once."""
    if not rows:
        return ()
    return tuple(
        " ".join(dict.fromkeys(c for c in (row.cells[k] for row in rows) if c)) for k in range(len(rows[0].cells))
    )


def ruled_tables(strokes: Sequence[Stroke], words: Sequence[Word]) -> list[Table]:
    """Tables of a page from its strokes, top to bottom."""
    flat = _collinear([(s.y0, s.x0, s.x1) for s in strokes if s.horizontal])
    tall = _collinear([(s.x0, s.y0, s.y1) for s in strokes if not s.horizontal])
    found = []
    for rows, columns in _components(flat, tall):
        table = _table(rows, columns, words)
        if table is not None:
            found.append(table)
    inner = [t for t in found if not any(o is not t and _inside(t.region, o.region) for o in found)]
    return sorted(inner, key=lambda t: (t.region.y0, t.region.x0))


Line = tuple[float, float, float]  # place across, start, end


def _collinear(lines: list[Line]) -> list[Line]:
    """Strokes that lie on one line and touch, as one; those of two columns at one height stay two."""
    merged: list[Line] = []
    level: list[Line] = []
    for line in [*sorted(lines), None]:
        if level and (line is None or line[0] - level[0][0] > SNAP):
            merged += _touching(level)
            level = []
        if line is not None:
            level.append(line)
    return merged


def _touching(level: list[Line]) -> list[Line]:
    joined: list[Line] = []
    for place, start, end in sorted(level, key=lambda line: line[1]):
        if joined and start <= joined[-1][2] + TOUCH:
            first = joined[-1]
            joined[-1] = (first[0], first[1], max(first[2], end))
        else:
            joined.append((place, start, end))
    return joined


def _components(flat: list[Line], tall: list[Line]) -> list[tuple[list[Line], list[Line]]]:
    group = list(range(len(flat) + len(tall)))

    def root(k: int) -> int:
        while group[k] != k:
            group[k] = group[group[k]]
            k = group[k]
        return k

    for i, (y, x0, x1) in enumerate(flat):
        for j, (x, y0, y1) in enumerate(tall):
            if x0 - TOUCH <= x <= x1 + TOUCH and y0 - TOUCH <= y <= y1 + TOUCH:
                group[root(i)] = root(len(flat) + j)
    held: dict[int, tuple[list[Line], list[Line]]] = {}
    for i, line in enumerate(flat):
        held.setdefault(root(i), ([], []))[0].append(line)
    for j, line in enumerate(tall):
        held.setdefault(root(len(flat) + j), ([], []))[1].append(line)
    return [(rows, columns) for rows, columns in held.values() if len(rows) >= 2 and columns]


def _places(lines: list[Line]) -> list[float]:
    places: list[float] = []
    for place in sorted(line[0] for line in lines):
        if not places or place - places[-1] > SNAP:
            places.append(place)
    return places


def _table(rows: list[Line], columns: list[Line], words: Sequence[Word]) -> Table | None:
    xs, ys = _places(columns), _places(rows)
    left, right = min(r[1] for r in rows), max(r[2] for r in rows)
    if xs[0] - left > 2 * TOUCH:  # a table without outer verticals
        xs.insert(0, left)
    if right - xs[-1] > 2 * TOUCH:
        xs.append(right)
    if len(xs) < MIN_COLUMNS + 1 or len(ys) < 2 or len(xs) * len(ys) > MAX_GRID:
        return None
    region = Region(xs[0], ys[0], xs[-1], ys[-1])
    standing = sum(_parts(columns, x, ys[0], ys[-1]) for x in xs[1:-1])
    if len(ys) < 3 or standing < MIN_UPRIGHT * (len(xs) - 2):  # underlines of sums, boxes around text
        return None
    inside = [w for w in words if w.upright and region.holds(*w.middle)]
    bands = [row for k in range(len(ys) - 1) for row in _rows_of(_band(k, xs, ys, rows, columns, inside), xs, inside)]
    filled = [band for band in bands if any(band.cells)]
    if not any(c.isalpha() for band in filled for cell in band.cells for c in cell):
        return None  # the sums of a statement, whose names stand outside
    if not filled:
        return None
    if not any(len({c for c in band.cells if c}) > 1 for band in filled):
        return None  # boxes of a flow chart
    filled_columns = [
        k for k in range(len(xs) - 1) if xs[k + 1] - xs[k] > DOUBLE_RULE or any(band.cells[k] for band in filled)
    ]
    if len(filled_columns) < MIN_COLUMNS:
        return None
    kept = [Row(tuple(b.cells[k] for k in filled_columns), b.region, b.bold, b.spans) for b in filled]
    title = ""
    if len(kept) > 1 and kept[0].spans and len(set(kept[0].cells)) == 1:
        title, kept = kept[0].cells[0], kept[1:]
    second = len(kept) > 2 and kept[0].spans and len(set(kept[0].cells)) > 1
    return Table(region, tuple(kept), 2 if second else 1, title)


def _band(
    k: int, xs: list[float], ys: list[float], rows: list[Line], columns: list[Line], words: Sequence[Word]
) -> Row:
    top, bottom = ys[k], ys[k + 1]
    cells = [""] * (len(xs) - 1)
    held: list[Word] = []
    spans = False
    start = 0
    while start < len(xs) - 1:
        end = start + 1
        while end < len(xs) - 1 and not _parts(columns, xs[end], top, bottom):
            end += 1
        high, low = top, bottom  # a cell that spans rows has its text in each of them
        above, below = k, k + 1
        while above > 0 and not _parts(rows, ys[above], xs[start], xs[end]):
            above -= 1
            high = ys[above]
        while below < len(ys) - 1 and not _parts(rows, ys[below], xs[start], xs[end]):
            below += 1
            low = ys[below]
        box = Region(xs[start], high, xs[end], low)
        own = [w for w in words if box.holds(*w.middle)]
        text = join_lines(line.text for line in lines_of(pieces_of(own))) if own else ""
        cells[start:end] = [text] * (end - start)
        spans |= end - start > 1 and bool(text)
        held += [w for w in own if top <= w.middle[1] <= bottom]
        start = end
    return Row(tuple(cells), Region(xs[0], top, xs[-1], bottom), bool(held) and all(w.bold for w in held), spans)


def _rows_of(band: Row, xs: list[float], words: Sequence[Word]) -> list[Row]:
    """A band as its rows: rules may stand around groups of them, told by a column with a number on each line."""
    if band.spans:
        return [band]
    held = []
    for x0, x1 in itertools.pairwise(xs):
        cell = Region(x0, band.region.y0, x1, band.region.y1)
        own = [w for w in words if cell.holds(*w.middle)]
        held.append(lines_of(pieces_of(own)) if own else [])
    filled = [lines for lines in held if lines]
    heights = [[(line.y0 + line.y1) / 2 for line in lines] for lines in filled]
    level = all(
        len(ys) == len(heights[0]) and all(abs(a - b) < SNAP for a, b in zip(ys, heights[0], strict=True))
        for ys in heights
    )
    numbers = any(all(_NUMBER.fullmatch(line.text) for line in lines) for lines in filled)
    if len(filled) < 2 or len(filled[0]) < 2 or not level or not numbers:
        return [band]
    edges = [band.region.y0, *((a + b) / 2 for a, b in itertools.pairwise(heights[0])), band.region.y1]
    return [
        Row(
            tuple(lines[k].text if lines else "" for lines in held),
            Region(xs[0], top, xs[-1], bottom),
            band.bold,
            False,
        )
        for k, (top, bottom) in enumerate(itertools.pairwise(edges))
    ]


def _parts(lines: list[Line], place: float, start: float, end: float) -> bool:
    """Whether strokes at a place cover most of a cell's side."""
    covered = sum(max(0.0, min(s[2], end) - max(s[1], start)) for s in lines if abs(s[0] - place) <= SNAP)
    return covered >= MIN_COVER * (end - start)


def _inside(inner: Region, outer: Region) -> bool:
    return (
        outer.x0 - SNAP <= inner.x0
        and outer.y0 - SNAP <= inner.y0
        and inner.x1 <= outer.x1 + SNAP
        and inner.y1 <= outer.y1 + SNAP
        and (outer.x1 - outer.x0) * (outer.y1 - outer.y0) > (inner.x1 - inner.x0) * (inner.y1 - inner.y0)
    )
