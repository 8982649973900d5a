"""Tables with lying rules only: above, below and under the header, as papers set them, or under every row."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from ..strokes import Stroke
from ..words import Word
from .aligned import columns_of, row_of
from .tables import Table
from .text_lines import Region, TextLine, lines_of, pieces_of

SAME_END = 3.0  # points by which the ends of a table's rules may differ
MIN_WIDTH = 80.0
MIN_LINES_SHARE = 0.6  # of the lines between the rules: how many have to have two cells
MAX_CELL_WORDS = 6  # median
MAX_HEADER_LINES = 4
TALL = 2.5  # times the usual distance of two rules: text may stand between them, and two tables
ABOVE = 1.3  # of a line's height: how far above the first rule, or above each other, a table's first lines stand
MAX_ABOVE = 4  # lines


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
    found: list[Table] = []
    for group in (g for g in groups if len(g) >= 3):
        for rules in _parted(group, words):
            low = max((t.region.y1 for t in found), default=float("-inf"))
            table = _table(rules, words, low)
            found += [table] if table is not None else []
    return found


def _parted(group: Sequence[Stroke], words: Sequence[Word]) -> list[list[Stroke]]:
    """Rules of one width as those of one table each: a heading, a caption or text between two of them parts them."""
    usual = statistics.median_low([b.y0 - a.y0 for a, b in itertools.pairwise(group)])
    parts = [[group[0]]]
    for above, below in itertools.pairwise(group):
        lines = _lines_between(above, above.y0, below.y0, words)
        whole = [len(line.pieces) < 2 for line in lines]
        if whole and whole[0] and below.y0 - above.y0 > TALL * usual and 2 * sum(whole) >= len(whole):
            parts.append([])
        parts[-1].append(below)
    return [part for part in parts if len(part) >= 3] if len(parts) > 1 else parts


def _lines_between(rule: Stroke, top: float, bottom: float, words: Sequence[Word]) -> list[TextLine]:
    region = Region(rule.x0 - SAME_END, top, rule.x1 + SAME_END, bottom)
    inside = [w for w in words if region.holds(*w.middle)]
    return lines_of(pieces_of(inside)) if inside else []


def _table(rules: Sequence[Stroke], words: Sequence[Word], low: float) -> Table | None:
    """The table of rules; its first lines may stand above them, but not above `low`."""
    first = rules[0]
    above = _first_lines(first, words, low)
    top = min([first.y0, *(line.y0 - 1.0 for line in above)])
    region = Region(first.x0 - SAME_END, top, first.x1 + SAME_END, rules[-1].y0)
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
    end = first.y0 if above else rules[1].y0
    num_header = sum((line.y0 + line.y1) / 2 < end for line in lines)
    cells = [len(c.split()) for band in bands for c in band.cells if c]
    if not 1 <= num_header <= MAX_HEADER_LINES or statistics.median(cells) > MAX_CELL_WORDS:
        return None
    return Table(region, bands, num_header, ruled=False, lines=tuple(lines))


def _first_lines(rule: Stroke, words: Sequence[Word], low: float) -> list[TextLine]:
    """Lines of several cells right above a table's first rule, as where rules stand under rows alone; bottom first."""
    found: list[TextLine] = []
    edge = rule.y0
    beside = [w for w in words if w.y0 < rule.y0 and w.y1 < rule.y0 + w.size and w.y0 > low]
    inside = [w for w in beside if rule.x0 - SAME_END <= w.x0 and w.x1 <= rule.x1 + SAME_END]
    crossing = [w for w in beside if w.x0 < rule.x0 - SAME_END < w.x1 or w.x0 < rule.x1 + SAME_END < w.x1]
    for line in reversed(lines_of(pieces_of(inside)) if inside else []):
        height = line.y1 - line.y0
        cut = any(w.y0 < line.y1 and w.y1 > line.y0 for w in crossing)
        if cut or len(line.pieces) < 2 or edge - line.y1 > ABOVE * height or len(found) == MAX_ABOVE:
            break
        found.append(line)
        edge = line.y0
    return found
