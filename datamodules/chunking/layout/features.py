"""Numbers that the trained chunker is told of an item: its place, its type, how it begins, how it fits what is open.

All are of the order of one. Lengths are shares of the page's upright width or height, or multiples of the body's type
size; counts go through logarithms. Axis legend: N item, F number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from ..context import ChunkContext
from ..contract import parse
from ..lines import is_answer, is_bullet, is_contents_line, is_page_number, is_question, step_number
from ..strokes import Stroke
from ..verbatim import tokens
from .blocks import TERMINAL, Block
from .items import Item
from .style import DocumentStyle, band, in_zone, looks_like_heading, normal

OWN_NAMES = (
    *("x0", "y0", "x1", "y1", "indent", "room_right", "column_width", "size", "bold", "gap_above", "gap_below"),
    *("num_lines", "num_chars", "above_last", "moved_in"),  # _place
    *("bullet", "lettered", "roman", "step", "first_step", "question", "answer", "contents_line", "page_number"),
    *("ends_sentence", "ends_in_colon", "ends_in_question", "lower", "upper", "digits", "capitals"),
    *("depth1", "depth2", "depth3", "ends_in_digit"),  # _beginning
    *("like_heading", "level2", "level3", "is_running", "in_zone", "outermost", "in_title", "repeats", "in_band"),
    *("is_line", "is_band", "in_table", "part0", "part1", "part", "parts_left", "num_cells", "numeric", "empty"),
    *("first_empty", "later_lower", "in_header", "spans"),  # _table
    *("rule_above", "rule_below", "first_of_page", "last_of_page"),
)
RELATED_NAMES = (
    *("next_step", "old_step", "in_procedure", "since_step", "same_columns", "like_header", "open_table"),
    *("last_ended", "cut_sentence", "first_of_batch", "new_page", "page", "has_context"),
)
OWN = {name: k for k, name in enumerate(OWN_NAMES)}
RELATED = {name: k for k, name in enumerate(RELATED_NAMES)}
NUM_OWN, NUM_RELATED = len(OWN), len(RELATED)
_LETTERED = re.compile(r"\s*\(?[a-z][.)]\s+\S")
_ROMAN = re.compile(r"\s*\(?[ivxlc]{1,6}[.)]\s+\S", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*(\d{1,3}(?:\.\d{1,3})*)\.?\s+\S")
_NUMERIC = re.compile(r"[(\-–—$€£+]*\s*\d[\d.,:/]*\s*[%)€$]*")
_NEAR_STROKE = 0.8  # of the body's type size: how far a rule may lie from a line


def own_features(
    items: Sequence[Item], blocks: Sequence[Block], style: DocumentStyle, strokes: Sequence[Stroke]
) -> np.ndarray:
    """What each item of one page is by itself and beside its neighbours.

    Args:
        items: of the page, in order.
        blocks: those that the items number.
        style: of the document.
        strokes: of the page, upright.

    Returns:
        [N, NUM_OWN] float32.
    """
    rules = sorted((s.y0, s.x0, s.x1) for s in strokes if s.horizontal)
    rows = []
    for k, item in enumerate(items):
        block = blocks[item.block]
        before = items[k - 1] if k else None
        after = items[k + 1] if k + 1 < len(items) else None
        rows.append(
            [
                *_place(item, block, before, after, style.body_size),
                *_beginning(item.text),
                *_style(block, style),
                *_table(item, block),
                *_ruled(item, rules, style.body_size),
                float(k == 0),
                float(after is None),
            ]
        )
    return np.asarray(rows, np.float32).reshape(len(items), NUM_OWN)


def _place(item: Item, block: Block, before: Item | None, after: Item | None, body: float) -> list[float]:
    width, height = block.frame.upright_size
    r, column = item.upright, block.column
    size = item.line.size if item.line is not None else block.size
    bold = item.line.bold if item.line is not None else block.bold
    if item.kind == "band" and block.table is not None:
        bold = block.table.rows[item.part].bold
    lines = len(block.lines) if item.kind == "text" else 1
    gap_above = r.y0 - before.upright.y1 if before else 6 * body
    gap_below = after.upright.y0 - r.y1 if after else 6 * body
    return [
        r.x0 / width,
        r.y0 / height,
        r.x1 / width,
        r.y1 / height,
        (r.x0 - column[0]) / body / 4,
        (column[1] - r.x1) / (column[1] - column[0] + 1),
        (column[1] - column[0]) / width,
        _clip(4 * math.log(size / body)) if size else 0.0,
        float(bold),
        _clip(gap_above / body / 2),
        _clip(gap_below / body / 2),
        math.log1p(lines) / 2,
        math.log1p(len(item.text)) / 5,
        float(r.y0 < (before.upright.y0 if before else 0.0)),
        (r.x0 - before.upright.x0) / body / 4 if before and abs(r.x0 - before.upright.x0) < 8 * body else 0.0,
    ]


def _beginning(text: str) -> list[float]:
    step = step_number(text)
    letters = [c for c in text if c.isalpha()]
    numbered = _NUMBERED.match(text)
    depth = numbered[1].count(".") + 1 if numbered else 0
    return [
        float(is_bullet(text)),
        float(bool(_LETTERED.match(text))),
        float(bool(_ROMAN.match(text))),
        float(step is not None),
        float(step == 1),
        float(is_question(text)),
        float(is_answer(text)),
        float(is_contents_line(text)),
        float(is_page_number(text, bare=True)),
        float(text.endswith(TERMINAL)),
        float(text.endswith(":")),
        float(text.endswith("?")),
        float(text[:1].islower()),
        float(text[:1].isupper()),
        sum(c.isdigit() for c in text) / max(1, len(text)),
        sum(c.isupper() for c in letters) / max(1, len(letters)),
        float(depth == 1),
        float(depth == 2),
        float(depth >= 3),
        float(bool(re.search(r"\d\s*$", text))),
    ]


def _style(block: Block, style: DocumentStyle) -> list[float]:
    level = style.heading_level(block)
    text = normal(block.text)
    return [
        float(looks_like_heading(block, style.body_size)),
        float(level == 2),
        float(level == 3),
        float(style.is_running(block)),
        float(in_zone(block)),
        float(block.outermost),
        float(bool(block.text.strip()) and block.text.strip() in style.title),
        float(text in style.running and bool(text)),
        float(block.table is None and band(block) in style.bands),
    ]


def _table(item: Item, block: Block) -> list[float]:
    table = block.table
    parts = len(table.lines or table.rows) if table is not None else len(block.lines)
    cells = item.cells if item.kind != "text" else ()
    filled = [c for c in cells if c]
    return [
        float(item.kind == "line"),
        float(item.kind == "band"),
        float(table is not None),
        float(item.kind != "text" and item.part == 0),
        float(item.kind != "text" and item.part == 1),
        math.log1p(item.part) / 3,
        math.log1p(parts - item.part) / 3 if item.kind != "text" else 0.0,
        len(cells) / 6,
        sum(bool(_NUMERIC.fullmatch(c)) for c in filled) / max(1, len(filled)),
        1 - len(filled) / len(cells) if cells else 0.0,
        float(bool(cells) and not cells[0]),
        float(any(c[:1].islower() for c in cells[1:])),
        float(table is not None and item.part < table.num_header),
        float(item.kind == "band" and table is not None and table.rows[item.part].spans),
    ]


def _ruled(item: Item, rules: Sequence[tuple[float, float, float]], body: float) -> list[float]:
    r, near = item.upright, _NEAR_STROKE * body
    over = [(y, min(b, r.x1) - max(a, r.x0)) for y, a, b in rules if y > r.y0 - near and y < r.y1 + near]
    wide = [y for y, shared in over if shared > 0.5 * (r.x1 - r.x0)]
    middle = (r.y0 + r.y1) / 2
    return [float(any(y < middle for y in wide)), float(any(y >= middle for y in wide))]


def related_features(items: Sequence[Item], own_NF: np.ndarray, context: ChunkContext) -> np.ndarray:
    """How each item of a batch fits what is open before it: in the context, and among the items before it.

    Args:
        items: of all pages of the batch.
        own_NF: own_features of them; running lines do not count as what stood before.
        context: carried over.

    Returns:
        [N, NUM_RELATED] float32.
    """
    last_step = context.open_procedure.last_step if context.open_procedure else 0
    columns, header = len(context.open_table), _cells(context.open_table)
    last = last_text(context)
    since = 0
    rows = []
    first_page = items[0].page if items else 0
    before: Item | None = None
    for item, is_running in zip(items, own_NF[:, OWN["is_running"]], strict=True):
        step = step_number(item.text)
        own = _cells(item.cells)
        alike = bool(own) and bool(header) and own <= header
        same = item.kind != "text" and columns == len(item.cells)
        rows.append(
            [
                float(step is not None and step == last_step + 1),
                float(step is not None and step <= last_step),
                float(last_step > 0),
                math.log1p(since) / 3 if last_step else 0.0,
                float(same),
                float(alike),
                float(bool(columns)),
                float(last.endswith(TERMINAL)),
                float(bool(last) and not last.endswith(TERMINAL) and item.text[:1].islower()),
                float(before is None),
                float(before is not None and before.page != item.page),
                (item.page - first_page) / 4,
                float(bool(context.headings)),
            ]
        )
        before = item
        if is_running:
            continue
        since += 1
        if step is not None:
            last_step, since = step, 0
        if item.kind != "text":
            columns = len(item.cells)
            if item.part == 0:
                header = header | own
        last = item.text
    return np.asarray(rows, np.float32).reshape(len(items), NUM_RELATED)


def last_text(context: ChunkContext) -> str:
    """Text of the last chunk that a context carries, or its end; empty where there is none."""
    if not context.last_chunks:
        return ""
    chunks = parse(context.last_chunks[-1], context.headings).chunks
    return chunks[-1].text.rstrip() if chunks else ""


def _cells(cells: Sequence[str]) -> frozenset[str]:
    return frozenset(" ".join(tokens(c)) for c in cells if c)


def _clip(value: float) -> float:
    return max(-3.0, min(3.0, value))
