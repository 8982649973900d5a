"""Tables with rules above, below and under the header only, as papers and reports set them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ..strokes import Stroke
from ..words import Word
from .aligned import columns_of, row_of
from .tables import Table
from .text_lines import Region, lines_of, pieces_of

SAME_END = 3.0  # points by which the ends of a table's rules may differ
MIN_WIDTH = 80.0
MIN_LINES_SHARE = 0.6  # of the lines between the rules: how many have to have two cells
MAX_CELL_WORDS = 6  # median
MAX_HEADER_LINES = 4


def open_tables(strokes: Sequence[Stroke], words: Sequence[Word], taken: Sequence[Table]) -> list[Table]:
    """Tables between three or more lying rules of one width; those that `taken` holds are not looked at again."""
    groups: list[list[Stroke]] = []
    for stroke in sorted((s for s in strokes if s.horizontal and s.x1 - s.x0 >= MIN_WIDTH), key=lambda s: s.y0):
        if any(t.region.holds((stroke.x0 + stroke.x1) / 2, stroke.y0) for t in taken):
            continue
        same = (g for g in groups if abs(g[0].x0 - stroke.x0) <= SAME_END and abs(g[0].x1 - stroke.x1) <= SAME_END)
        group = next(same, None)
        if group is None:
            groups.append([stroke])
        elif stroke.y0 - group[-1].y0 > 2.0:  # a double rule counts once
            group.append(stroke)
    tables = (_table(group, words) for group in groups if len(group) >= 3)
    return [table for table in tables if table is not None]


def _table(rules: Sequence[Stroke], words: Sequence[Word]) -> Table | None:
    region = Region(rules[0].x0 - SAME_END, rules[0].y0, rules[0].x1 + SAME_END, rules[-1].y0)
    inside = [w for w in words if region.holds(*w.middle)]
    lines = lines_of(pieces_of(inside)) if inside else []
    rows = [line for line in lines if len(line.pieces) > 1]
    body = [line for line in rows if line.y0 > rules[1].y0 - 2.0]
    if len(body) < 2 or len(rows) < MIN_LINES_SHARE * len(lines):
        return None
    columns = columns_of(body)
    if not 2 <= len(columns) <= 20:
        return None
    bands = tuple(row_of(line, columns) for line in lines)
    num_header = sum((line.y0 + line.y1) / 2 < rules[1].y0 for line in lines)
    cells = [len(c.split()) for band in bands for c in band.cells if c]
    if not 1 <= num_header <= MAX_HEADER_LINES or statistics.median(cells) > MAX_CELL_WORDS:
        return None
    return Table(region, bands, num_header, ruled=False, lines=tuple(lines))
