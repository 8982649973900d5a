"""Tables without rules: lines whose pieces stand under each other in columns, as financial statements set them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from .tables import Row, Table
from .text_lines import Region, TextLine

MIN_ROWS = 3
MAX_CELL_WORDS = 5  # median, beyond the first column: more is text in columns
MAX_SINGLE = 2  # lines of one piece in a row that do not end a table
_NUMBER = re.compile(r"[(\-–—$€£]*\s*\d[\d.,]*\s*[%)]*")
_YEAR = re.compile(r"(?:19|20)\d\d")
_ATTACHED = re.compile(r"[$€£%)(]+")
_BLANK = re.compile(r"[-–—]+")


def aligned_tables(lines: Sequence[TextLine]) -> list[tuple[int, int, Table]]:
    """Tables among the lines of one stretch: first line, line after the last, table."""
    found: list[tuple[int, int, Table]] = []
    start = 0
    while start < len(lines):
        end = _run(lines, start)
        table = _table(lines[start:end]) if end - start >= MIN_ROWS else None
        if table is not None:
            found.append((start, end, table))
        start = max(end, start + 1)
    return found


def _run(lines: Sequence[TextLine], start: int) -> int:
    """Line after the last of the rows that begin at `start`; `start` itself if no row begins there."""
    if len(lines[start].pieces) < 2:
        return start
    end = start + 1
    single = 0
    for k in range(start + 1, len(lines)):
        line = lines[k]
        if line.y0 - lines[k - 1].y1 > 2.2 * (line.y1 - line.y0):
            break
        single = 0 if len(line.pieces) > 1 else single + 1
        if single > MAX_SINGLE or (single and len(line.words) > 10):
            break
        if not single:
            end = k + 1
    return end


def columns_of(lines: Sequence[TextLine]) -> list[tuple[float, float]]:
    """Stretches of x that pieces of rows cover; signs such as `$` belong to the column beside them."""
    spans: list[list[float]] = []
    pieces = [p for line in lines if len(line.pieces) > 1 for p in line.pieces]
    counted = [p for p in pieces if not _ATTACHED.fullmatch(p.text)]
    for piece in sorted(counted, key=lambda p: p.x0):
        if spans and piece.x0 <= spans[-1][1] + 1.0:
            spans[-1][1] = max(spans[-1][1], piece.x1)
        else:
            spans.append([piece.x0, piece.x1])
    return [(a, b) for a, b in spans]


def _table(lines: Sequence[TextLine]) -> Table | None:
    rows = [line for line in lines if len(line.pieces) > 1]
    body = [line for line in rows if _is_body(line)]
    columns = columns_of(body if len(body) >= MIN_ROWS else rows)
    if len(rows) < MIN_ROWS or not 2 <= len(columns) <= 20 or 2 * len(rows) < len(lines):
        return None
    bands = [row_of(line, columns) for line in lines]
    beyond = [len(c.split()) for band in bands for c in band.cells[1:] if c]
    if not beyond or statistics.median(beyond) > MAX_CELL_WORDS:
        return None
    numbers = sum(bool(_NUMBER.fullmatch(c) or _BLANK.fullmatch(c)) for band in bands for c in band.cells[1:] if c)
    num_header = _num_header(lines, bands)
    if numbers < 0.4 * len(beyond) and not (num_header and bands[0].bold):
        return None
    rows_joined = (*bands[:num_header], *_labels_joined(bands[num_header:]))
    return Table(Region.around(lines), rows_joined, num_header, ruled=False, lines=tuple(lines))


def _labels_joined(bands: Sequence[Row]) -> list[Row]:
    """Rows whose label is set in several lines, of which the last has the values, as one."""
    joined: list[Row] = []
    for band in bands:
        before = joined[-1] if joined else None
        if before and not any(before.cells[1:]) and not before.bold and band.cells[0][:1].islower():
            cells = (f"{before.cells[0]} {band.cells[0]}", *band.cells[1:])
            joined[-1] = Row(cells, Region.around([before.region, band.region]), band.bold, band.spans)
        else:
            joined.append(band)
    return joined


def _is_body(line: TextLine) -> bool:
    texts = [p.text for p in line.pieces[1:] if not _ATTACHED.fullmatch(p.text)]
    return any(_NUMBER.fullmatch(t) and not _YEAR.fullmatch(t) for t in texts)


def _num_header(lines: Sequence[TextLine], bands: Sequence[Row]) -> int:
    """Lines before the first with numbers that are no years; 0 if that is the first."""
    count = 0
    for line, band in zip(lines, bands, strict=True):
        if _is_body(line) or (count and band.cells[0] and not any(band.cells[1:])) or count == 4:
            break
        count += 1
    return count if 0 < count < len(bands) else 0


def row_of(line: TextLine, columns: list[tuple[float, float]]) -> Row:
    """A line's pieces in their columns; one that stands over several is repeated in each."""
    cells: list[list[str]] = [[] for _ in columns]
    spans = False
    for piece in line.pieces:
        over = [k for k, (a, b) in enumerate(columns) if min(b, piece.x1) - max(a, piece.x0) > 0.0]
        if not over:
            middle = (piece.x0 + piece.x1) / 2
            if _ATTACHED.fullmatch(piece.text) and piece.text[0] in "$€£(":
                later = [k for k, (a, _) in enumerate(columns) if a >= piece.x0]
                over = later[:1]
            over = over or [min(range(len(columns)), key=lambda k: abs(sum(columns[k]) / 2 - middle))]
        spans |= len(over) > 1
        for k in over if len(line.pieces) > 1 or over[0] > 0 else over[:1]:
            cells[k].append(piece.text)
    texts = tuple(" ".join(c) for c in cells)
    return Row(texts, Region(line.x0, line.y0, line.x1, line.y1), line.bold, spans)
