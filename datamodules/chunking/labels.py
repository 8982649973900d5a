"""What the trained chunker should say of a typeset document's items, and the context that it should be given.

An item is matched with the part of the truth that it covers most. `IGNORED` marks what has no answer: no part matches,
or the question does not arise (a running line begins no chunk).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .chunks import Box
from .context import MAX_CHUNKS, ChunkContext
from .contract import Flag, TaggedChunk
from .layout.items import Item
from .layout.text_lines import Region
from .lines import separator_line, table_line
from .typeset.grouping import three_headings
from .typeset.truth import OUTSIDE_CHUNKS, ROLES, Block, Chunk, Part, Truth

IGNORED = -100
FLAGS: tuple[Flag, ...] = ("False", "True", "Partial")
MIN_SHARE = 0.5  # of an item's or of a part's area that both have to share


@dataclass(frozen=True)
class Labels:
    """Of each item, [N] int64 each.

    Attributes:
        role: number in `ROLES`.
        begins: 1 if it begins a chunk or a table's row, 0 if it goes on with one.
        flag: number in `FLAGS`, of the first item of a page that counts.
    """

    role: np.ndarray
    begins: np.ndarray
    flag: np.ndarray


def label_items(items: Sequence[Item], truth: Truth) -> Labels:
    """Labels of all items of a document, in order."""
    role, begins, flag = (np.full(len(items), IGNORED, np.int64) for _ in range(3))
    starts = {start.page: start for start in truth.page_starts}
    headers = {b.table: b for b in reversed(truth.blocks) if b.role == "table_header"}
    seen: set[str] = set()
    flagged: set[int] = set()
    pages = {number: truth.on_page(number) for number in {item.page for item in items}}
    row_before = -1
    for k, item in enumerate(items):
        block = _match(item, pages[item.page])
        if block is None:
            continue
        role[k] = ROLES.index(block.role)
        if block.role in OUTSIDE_CHUNKS:
            if block.role == "table_header" and block.table in headers:
                begins[k] = int(block.id != row_before)
            row_before = block.id
            start = starts[item.page]
            if block.id == start.block and item.page not in flagged:
                flag[k] = FLAGS.index(start.continues)
                flagged.add(item.page)
            continue
        key = f"row {block.id}" if block.role == "table_row" else block.chunk
        begins[k] = int(key not in seen)
        seen.add(key)
        row_before = block.id
        if item.page not in flagged and starts[item.page].block == block.id:
            flag[k] = FLAGS.index(starts[item.page].continues)
            flagged.add(item.page)
    return Labels(role, begins, flag)


def _match(item: Item, parts: Sequence[tuple[Block, Part]]) -> Block | None:
    region = item.region
    own = (region.x1 - region.x0) * (region.y1 - region.y0)
    best: tuple[float, Block] | None = None
    for block, part in parts:
        shared = _shared(region, part.box)
        area = (part.box.x1 - part.box.x0) * (part.box.y1 - part.box.y0)
        share = max(shared / max(own, 1e-6), shared / max(area, 1e-6))
        if share >= MIN_SHARE and (best is None or shared > best[0]):
            best = (shared, block)
    return best[1] if best else None


def _shared(region: Region, box: Box) -> float:
    across = min(region.x1, box.x1) - max(region.x0, box.x0)
    down = min(region.y1, box.y1) - max(region.y0, box.y0)
    return across * down if across > 0 and down > 0 else 0.0


def true_context(truth: Truth, page: int) -> ChunkContext:
    """What a perfect reader carries to a page (from 1) from those before it."""
    before = [chunk for chunk in truth.chunks if chunk.page_start < page]
    tagged = [_until(truth, chunk, page) for chunk in before[-MAX_CHUNKS - 1 :]]
    context = ChunkContext().advance([t for t in tagged if t.text.strip()])
    furniture = ("header", "footer", "page_number", "contents_entry")
    paths = [b.path for b in truth.blocks if b.parts[0].box.page < page and b.role not in furniture]
    return dataclasses.replace(context, headings=three_headings(paths[-1])) if paths else context


def _until(truth: Truth, chunk: Chunk, page: int) -> TaggedChunk:
    """A chunk as far as it stands before a page."""
    lines = []
    for number in chunk.blocks:
        block = truth.blocks[number]
        parts = [part for part in block.parts if part.box.page < page]
        if block.role == "table_row" and parts:
            header = next(b.cells for b in truth.blocks if b.role == "table_header" and b.table == block.table)
            cells = [" ".join(p.cells[k].text for p in parts if p.cells[k].text) for k in range(len(block.cells))]
            lines += [table_line(header), separator_line(len(header)), table_line(tuple(cells))]
        elif parts:
            lines.append(" ".join(part.text for part in parts))
    return TaggedChunk("False", chunk.headings, "\n".join(lines))
