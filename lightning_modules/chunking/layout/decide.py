"""From blocks to chunks, by rules: what each block is, where a chunk ends, what continues over a break of the batch.

A trained chunker is to take this module's place; the blocks, the chunks and the carried state stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ....datamodules.chunking.chunks import Box, PlacedChunk
from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import Flag, TaggedChunk, complete_headings
from ....datamodules.chunking.layout.blocks import TERMINAL, Block, turned_words
from ....datamodules.chunking.layout.style import DocumentStyle
from ....datamodules.chunking.layout.tables import Row, Table, stacked
from ....datamodules.chunking.lines import (
    figure_text,
    is_bullet,
    is_contents_line,
    is_question,
    separator_line,
    step_number,
    table_line,
)
from ....datamodules.chunking.merging import joined
from ....datamodules.chunking.pages import Page
from ....datamodules.chunking.verbatim import tokens

TARGET_CHARS = 1000  # a chunk of plain text ends at the first paragraph's end beyond this
MAX_STEP_AHEAD = 4  # blocks between two steps of one procedure
_CONTENTS_HEAD = re.compile(
    r"(?:table of )?contents|(?:list of )?(?:tables|figures|examples)|(?:subject )?index|inhalt\w*|sommaire",
    re.IGNORECASE,
)
_ENDS_IN_PAGE = re.compile(r"\S\s*[.,…]*\s*(?:\d{1,4}|\b[ivxlc]{1,6})\s*$", re.IGNORECASE)


@dataclass
class _Open:
    """The chunk that is being written."""

    continues: Flag = "False"
    texts: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    items: bool = False
    last_step: int = 0


class Decider:
    """Turns the blocks of a batch into chunks.

    Attributes:
        look_ahead: blocks between two steps of one procedure.

    Args:
        style: of the document.
        context: what the batch before has left.
        target_chars: length from which a chunk of plain text ends with its paragraph.
    """

    look_ahead = MAX_STEP_AHEAD

    def __init__(self, style: DocumentStyle, context: ChunkContext, target_chars: int = TARGET_CHARS) -> None:
        self.style, self.context, self.target_chars = style, context, target_chars
        title = style.title or "Document"
        self.headings: list[str] = list(context.headings) or [title, "", ""]
        self.chunks: list[PlacedChunk] = []
        self.left_out: dict[int, list[str]] = {}
        self.open = _Open()
        self.waiting: list[tuple[int, Block]] = []  # headings under which nothing stands yet
        self.table = context.open_table
        self.table_page = 0  # where it was last seen; 0 for the batch before
        self.rows_from = 0  # number of the chunk with which its rows begin there
        self.first = True  # nothing of this batch has been given out

    def read(self, blocks: Sequence[Block]) -> list[PlacedChunk]:
        """The chunks of a batch.

        Args:
            blocks: of all its pages, in order.
        """
        kept = [b for b in blocks if not self._is_dropped(b)]
        for k, block in enumerate(kept):
            if block.figure:
                self._figure(block, kept[k + 1 : k + 1 + self.look_ahead])
                continue
            if self._is_contents(block):
                self._leave_out(block)
                continue
            level = 0 if block.table else self._level(block)
            if block.table is not None:
                self._table(block, block.table)
            elif level:
                self._heading(level, block)
            else:
                self._text(block, kept[k + 1 : k + 1 + self.look_ahead])
        self._heading_texts()
        self._flush()
        return self.chunks

    def _figure(self, block: Block, ahead: Sequence[Block]) -> None:
        """A figure with its caption is a chunk; one between two steps stays in their procedure."""
        text = figure_text(block.text)
        boxes = [Box(block.page, r.x0, r.y0, r.x1, r.y1) for r in block.figure]
        self.waiting = []
        if self.open.items and self._steps_ahead(ahead):
            self.open.texts.append(text)
            self.open.boxes += boxes
            return
        self._flush()
        self._emit("False", text, tuple(boxes))

    def _is_dropped(self, block: Block) -> bool:
        dropped = self.style.is_running(block)
        if dropped:
            self._leave_out(block)
        return dropped

    def _leave_out(self, block: Block) -> None:
        self.left_out.setdefault(block.page, []).append("\n".join(line_texts(block)))

    def text_left_out(self, pages: Sequence[Page]) -> dict[int, str]:
        """Page number -> what no chunk holds of these pages: what the rules drop, and words that read another way."""
        found = {n: "\n".join(texts) for n, texts in self.left_out.items()}
        for page in pages:
            if turned := turned_words(page):
                text = " ".join(w.text for w in turned)
                found[page.number] = f"{found.get(page.number, '')}\n{text}"
        return found

    def _is_contents(self, block: Block) -> bool:
        """Whether a block is part of a table of contents: by its leaders, or its page numbers under such a heading."""
        texts = line_texts(block)
        entries = sum(is_contents_line(text) for text in texts)
        if entries and 2 * entries >= len(texts):
            return True
        if not any(_CONTENTS_HEAD.fullmatch(h.strip()) for h in self.headings[1:]):
            return False
        return 2 * sum(bool(_ENDS_IN_PAGE.search(text)) for text in texts) >= len(texts)

    def _level(self, block: Block) -> int:
        if tokens(block.text) and block.text in self.style.title:
            return 1
        return self.style.heading_level(block)

    def _heading(self, level: int, block: Block) -> None:
        self._flush()
        self.table = ()
        if level == 1:
            self.headings[0] = self.style.title
            return
        text = " ".join(block.text.split())
        if self.waiting and self.waiting[-1][0] == level and self._belongs_to_last(block):
            text = f"{self.headings[level - 1]} {text}"  # `Chapter 3` and its name below, or a heading of two lines
        elif self.waiting and self.waiting[-1][0] >= level:
            self._heading_texts()
        if level == 2:
            self.headings[1], self.headings[2] = text, ""
        else:
            self.headings[2] = text
        self.waiting.append((level, block))

    def _belongs_to_last(self, block: Block) -> bool:
        last = self.waiting[-1][1]
        near = block.page == last.page and 0 <= block.upright.y0 - last.upright.y1 < 2.0 * block.size
        return near and abs(block.size - last.size) < 0.5

    def _heading_texts(self) -> None:
        """Headings without anything below them become text, so that nothing of the page is lost."""
        for level, block in self.waiting:
            alone = self.headings[level - 1] == " ".join(block.text.split()) or level == 3
            if alone:
                self.open.texts.append(" ".join(block.text.split()))
                self.open.boxes.append(box_of(block))
        self.waiting = []

    def _text(self, block: Block, ahead: Sequence[Block]) -> None:
        text = block.text.strip()
        if not text:
            return
        step, bullet = step_number(text), is_bullet(text)
        if self.first and not self.waiting and not self.open.texts:
            self.open.continues = self._flag(text, step, bullet, ahead)
        carried = self.open.continues == "True" and not self.open.texts
        procedure = self.context.open_procedure
        if carried and procedure:
            self.open.items, self.open.last_step = True, procedure.last_step
        is_item = bullet or step is not None
        if self.open.texts and not is_item and not self._goes_on(text, ahead):
            long = sum(map(len, self.open.texts)) >= self.target_chars
            if self.open.items or long or is_question(text):
                self._flush()
        if is_item:
            if step == 1 and self.open.items and self.open.last_step > 0:
                self._flush()  # another procedure
            self.open.items = True
            self.open.last_step = step or self.open.last_step
        self._write(text, block)

    def _goes_on(self, text: str, ahead: Sequence[Block]) -> bool:
        """Whether a paragraph belongs to what is open: a sentence that was cut, or words between two steps."""
        if not self.open.texts[-1].endswith(TERMINAL) and text[:1].islower():
            return True
        return self.open.items and self._steps_ahead(ahead)

    def _steps_ahead(self, ahead: Sequence[Block]) -> bool:
        for block in ahead:
            if block.table is not None or self._level(block):
                return False
            step = step_number(block.text)
            if self.open.last_step and step == self.open.last_step + 1:
                return True
            if step is not None:
                return False
        return False

    def _flag(self, text: str, step: int | None, bullet: bool, ahead: Sequence[Block]) -> Flag:
        """Whether the batch's first text goes on from the batch before."""
        if not self.context.last_chunks:
            return "False"
        procedure = self.context.open_procedure
        if procedure and (step == procedure.last_step + 1 or (bullet and step is None)):
            return "True"
        if procedure and procedure.last_step:
            self.open.last_step = procedure.last_step
            going_on = self._steps_ahead(ahead)
            self.open.last_step = 0
            if going_on:
                return "True"
        if self.table:
            return "False"
        ended = self.context.last_chunks[-1].rstrip().endswith(TERMINAL)
        if not ended and text[:1].islower():
            return "True"
        return "False" if ended else "Partial"

    def _write(self, text: str, block: Block) -> None:
        self.table = ()
        self.waiting = []
        opened = self.open
        if opened.texts and not opened.texts[-1].endswith(TERMINAL) and text[:1].islower():
            opened.texts[-1] = joined(opened.texts[-1], text)
        else:
            opened.texts.append(text)
        opened.boxes.append(box_of(block))

    def _flush(self) -> None:
        opened, self.open = self.open, _Open()
        if opened.texts:
            self._emit(opened.continues, "\n".join(opened.texts), tuple(opened.boxes))

    def _emit(self, continues: Flag, text: str, boxes: tuple[Box, ...]) -> None:
        heads = complete_headings(self.headings, ())
        pages = [b.page for b in boxes]
        self.chunks.append(PlacedChunk(TaggedChunk(continues, heads, text), boxes, min(pages), max(pages)))
        self.first = False

    def _table(self, block: Block, table: Table) -> None:
        rows, header = self._body(block, table)
        if not header:
            self._plain(block, table)
            return
        if table.title:
            self.open.texts.append(table.title)
            self.open.boxes.append(box_of(block))
        self._flush()
        self.waiting = []
        top = "\n".join([table_line(header), separator_line(len(header))])
        self.rows_from = len(self.chunks)
        for k, row in enumerate(rows):
            box = Box(block.page, row.region.x0, row.region.y0, row.region.x1, row.region.y1)
            cut = k == 0 and len(self.table) == len(header) and self._is_cut(row)
            line = table_line(row.cells)
            self._emit("True" if cut else "False", line if cut else f"{top}\n{line}", (box,))
        self.table, self.table_page = header, block.page

    def _body(self, block: Block, table: Table) -> tuple[Sequence[Row], tuple[str, ...]]:
        """Rows and header: the open table's own where this one goes on from it."""
        rows, own = table.rows, table.header
        if self.table and len(self.table) == len(rows[0].cells):
            same = next((n for n in (1, 2, 3) if n < len(rows) and header_alike(stacked(rows[:n]), self.table)), 0)
            if same:
                return rows[same:], self.table
            headed = rows[0].bold and not all(row.bold for row in rows)
            new = headed or (table.num_header > 0 and (not table.ruled or block.page == self.table_page))
            if not new and not self.open.texts and not self.waiting:
                return rows, self.table
        if not table.num_header or len(rows) <= table.num_header or not any(own):
            return rows, ()
        return rows[table.num_header :], own

    def _is_cut(self, row: Row) -> bool:
        return not row.cells[0] and any(c[:1].islower() for c in row.cells[1:])

    def _plain(self, block: Block, table: Table) -> None:
        """A table without a header: its rows as lines of text."""
        for row in table.rows:
            line = " ".join(dict.fromkeys(c for c in row.cells if c))
            if line:
                self.open.texts.append(line)
                self.open.boxes.append(Box(block.page, row.region.x0, row.region.y0, row.region.x1, row.region.y1))
        self.table, self.waiting = (), []


def line_texts(block: Block) -> list[str]:
    """Texts of a block's lines, or of a table's rows."""
    if block.table is None:
        return [line.text for line in block.lines]
    return [" ".join(c for c in row.cells if c) for row in block.table.rows]


def header_alike(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two headers say the same."""
    return [tokens(c) for c in first] == [tokens(c) for c in second]


def box_of(block: Block) -> Box:
    """Where a block stands."""
    r = block.region
    return Box(block.page, r.x0, r.y0, r.x1, r.y1)
