"""What the trained chunker judges one by one: a paragraph as a whole, a table and what may be one line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .blocks import Block
from .text_lines import Region, TextLine

MAX_TEXT_CHARS = 240  # of which the text encoder sees the first tokens
MAX_EMBEDDED_PARTS = 2  # of a table, so many rows have their text encoded: those that may be its header


@dataclass(frozen=True)
class Item:
    """One thing to judge.

    Attributes:
        block: number of its block in the list it was made from.
        part: number of the line or band in its block; 0 of a paragraph.
        kind: `text` for a whole paragraph, `line` of a block whose lines wide gaps part, `band` of a ruled table.
        page: page number, from 1.
        upright: where it stands, in the frame in which its text is upright.
        region: where it stands on the shown page.
        text: what it says.
        cells: texts of its cells, or of its pieces.
        line: the line, of a `line`.
    """

    block: int
    part: int
    kind: Literal["text", "line", "band"]
    page: int
    upright: Region
    region: Region
    text: str
    cells: tuple[str, ...]
    line: TextLine | None = None

    @property
    def encoded_text(self) -> str:
        """What the text encoder is given; empty where it is given nothing."""
        return self.text[:MAX_TEXT_CHARS] if self.part < MAX_EMBEDDED_PARTS else ""


def items_of(blocks: Sequence[Block]) -> list[Item]:
    """The items of blocks, in their order."""
    found: list[Item] = []
    for number, block in enumerate(blocks):
        if block.figure:
            continue  # told by its picture, not judged
        if block.table is not None and not block.table.lines:
            for part, row in enumerate(block.table.rows):
                text = " ".join(dict.fromkeys(c for c in row.cells if c))
                upright = block.frame.into(row.region)
                found.append(Item(number, part, "band", block.page, upright, row.region, text, row.cells))
            continue
        lines = block.table.lines if block.table is not None else block.lines
        if block.table is not None or any(len(line.pieces) > 1 for line in lines):
            found += [_of_line(number, part, block, line) for part, line in enumerate(lines)]
        else:
            text = block.text.strip()
            found.append(Item(number, 0, "text", block.page, block.upright, block.region, text, (text,)))
    return found


def _of_line(number: int, part: int, block: Block, line: TextLine) -> Item:
    upright = Region(line.x0, line.y0, line.x1, line.y1)
    cells = tuple(piece.text for piece in line.pieces)
    shown = block.frame.shown(upright)
    return Item(number, part, "line", block.page, upright, shown, line.text, cells, line)
