"""From judged blocks to chunks: the trained chunker's decisions, in the place of the rules of decide.py.

What the contract makes certain is not left to the network, and holds on top of what it thinks:

- blocks are read in the page's order, and the open headings stay until another one is read;
- every row carries its table's header, an open one also on later pages and over the batch's end (`Decider._table`);
- the next number of an open procedure goes on with it, and what stands between two of its steps stays inside;
- only what stands at a page's top or bottom is left out as a running line, only what ends in a number as
  contents, and what has leaders always;
- a footnote goes below the chunk that is open, and does not end it; one behind a table's rows goes before those of its
  page, so that the table is still open for what comes.

Chunks of plain text are packed up to `target_chars`, as by the rules: the network tells where one may end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from ....datamodules.chunking.chunks import PlacedChunk
from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import Flag, TaggedChunk
from ....datamodules.chunking.labels import FLAGS
from ....datamodules.chunking.layout.blocks import Block
from ....datamodules.chunking.layout.style import DocumentStyle, in_zone
from ....datamodules.chunking.layout.tables import Row, Table, stacked
from ....datamodules.chunking.lines import bare_step, is_answer, is_question, step_number
from ....datamodules.chunking.typeset.truth import ROLES
from ....datamodules.chunking.verbatim import tokens
from .decide import MAX_STEP_AHEAD, Decider, box_of, header_alike, line_texts
from .judged import RUNNING, Judged

HEADINGS = tuple(ROLES.index(r) for r in ("title", "heading1", "heading2", "heading3"))
CONTENTS = (ROLES.index("contents_entry"),)
STEPS = (ROLES.index("step"), ROLES.index("list_item"))
RULED_OUT = 0.05  # a running line by the rules stays one unless the network thinks less of it
MAX_HEADING_CHARS = 200
MAX_RUNNING_LINES = 3
MAX_ABOVE = 40  # words that may stand above a procedure in its chunk, and as many of the paragraph that leads in
SAME_PLACE = 3.0  # points by which bare step numbers may stand apart
_ENDS_IN_PAGE = re.compile(r"(?:\d{1,4}|\b[ivxlc]{1,7})\s*$", re.IGNORECASE)


class TrainedDecider(Decider):
    """Turns judged blocks of a batch into chunks.

    Args:
        style: of the document.
        context: what the batch before has left.
        judged: the batch's blocks, in order.
        target_chars: length from which a chunk of plain text ends with its paragraph.
    """

    look_ahead = 40  # a figure between two steps has many blocks of words

    def __init__(
        self, style: DocumentStyle, context: ChunkContext, judged: Sequence[Judged], target_chars: int
    ) -> None:
        super().__init__(style, context, target_chars)
        self.judged = {id(j.block): j for j in judged}
        self.notes: list[Block] = []
        self.bare_x: float | None = None  # where the open procedure's numbers stand, if they are bare
        self.table_begins = 1.0  # probability that the first row of the table in hand is a new one
        self.table_place: tuple[int, float] = (0, 0.0)  # page and top of the table that was read last

    def _of(self, block: Block) -> Judged:
        return self.judged[id(block)]

    def _is_dropped(self, block: Block) -> bool:
        chance = self._of(block).sum_of(RUNNING)
        at_edge = block.table is None and len(block.lines) <= MAX_RUNNING_LINES and (in_zone(block) or block.outermost)
        dropped = at_edge and (chance > 0.5 or (chance > RULED_OUT and self.style.is_running(block)))
        if dropped:
            self._leave_out(block)
        return dropped

    def _is_contents(self, block: Block) -> bool:
        if super()._is_contents(block):
            return True
        if self._of(block).sum_of(CONTENTS) <= 0.5:
            return False
        texts = line_texts(block)
        return 2 * sum(bool(_ENDS_IN_PAGE.search(text)) for text in texts) >= len(texts)

    def _level(self, block: Block) -> int:
        judged = self._of(block)
        if block.table is not None or judged.sum_of(HEADINGS) <= 0.5 or len(block.text) > MAX_HEADING_CHARS:
            return 0
        if is_answer(text := block.text.strip()) and (self._asked() or text[1:2].isalpha()):
            return 0  # `Answer:` is none; `A.` may be one, but not behind an open question
        if tokens(block.text) and " ".join(block.text.split()) in self.style.title:
            return 1
        chances = judged.probability[list(HEADINGS)]
        return 2 if chances[0] + chances[1] >= chances[2] + chances[3] else 3

    def _text(self, block: Block, ahead: Sequence[Block]) -> None:
        text, judged = block.text.strip(), self._of(block)
        if not text:
            return
        if judged.role == "footnote" and self.open.texts:
            self.notes.append(block)
            return
        if judged.role == "footnote" and self.table and self.table_page == block.page and not self.waiting:
            self._note_above_rows(text, block)
            return
        step = self._step_of(block, ahead)
        is_item = judged.sum_of(STEPS) > 0.5 or self.bare_x is not None
        if self.first and not self.waiting and not self.open.texts:
            self.open.continues = self._flag_of(text, judged, step, ahead)
        carried = self.open.continues == "True" and not self.open.texts
        if carried and self.context.open_procedure:
            self.open.items, self.open.last_step = True, self.context.open_procedure.last_step
        if self.open.texts and self._ends_before(text, judged, step, is_item, ahead):
            self._flush()
        if is_item and step == 1 and self.open.texts and not self.open.last_step:
            self._keep_lead_in()
        if is_item:
            self.open.items = True
            self.open.last_step = step or self.open.last_step
        self._write(text, block)

    def _note_above_rows(self, text: str, block: Block) -> None:
        """Put a footnote before the rows that stand on its page; behind the first if that goes on from a row before."""
        at = self.rows_from
        at += self.chunks[at].tagged.continues == "True"
        heads = self.chunks[at - 1 if at else at].tagged.headings
        note = PlacedChunk(TaggedChunk("False", heads, text), (box_of(block),), block.page, block.page)
        self.chunks.insert(at, note)
        self.rows_from = at + 1

    def _step_of(self, block: Block, ahead: Sequence[Block]) -> int | None:
        """A block's step number: a marked one, or a bare one where the next stands below it or the last above."""
        before = self.bare_x
        self.bare_x = None
        text, x0 = block.text.strip(), block.upright.x0
        if self._of(block).sum_of(STEPS) > 0.2 and (step := step_number(text)) is not None:
            return step
        bare = bare_step(text)
        if bare == 1:
            followed = any(bare_step(b.text) == 2 and abs(b.upright.x0 - x0) < SAME_PLACE for b in self._section(ahead))
            self.bare_x = x0 if followed else None
        elif bare is not None and before is not None and bare == self.open.last_step + 1:
            self.bare_x = x0 if abs(before - x0) < SAME_PLACE else None
        elif bare is None and self.open.items:
            self.bare_x = before if self._is_bare_ahead(before, ahead) else None
            return None
        return bare if self.bare_x is not None else None

    def _section(self, ahead: Sequence[Block]) -> Iterator[Block]:
        return itertools.takewhile(lambda b: b.table is None and not self._level(b), ahead)

    def _is_bare_ahead(self, place: float | None, ahead: Sequence[Block]) -> bool:
        """Whether the open procedure's next bare step stands ahead, in its place."""
        wanted = self.open.last_step + 1
        return place is not None and any(
            bare_step(b.text) == wanted and abs(b.upright.x0 - place) < SAME_PLACE
            for b in itertools.islice(self._section(ahead), MAX_STEP_AHEAD)
        )

    def _steps_ahead(self, ahead: Sequence[Block]) -> bool:
        """Whether the open procedure's next step comes, behind figures, notes and at most a few paragraphs."""
        if self._is_bare_ahead(self.bare_x, ahead):
            return True
        others = 0
        for block in ahead:
            judged = self._of(block)
            if block.table is not None or self._level(block):
                return False
            step = step_number(block.text) if judged.sum_of(STEPS) > 0.2 else None
            if self.open.last_step and step == self.open.last_step + 1:
                return True
            others += judged.role not in ("figure", "caption", "footnote")
            if step is not None or others > MAX_STEP_AHEAD:
                return False
        return False

    def _ends_before(self, text: str, judged: Judged, step: int | None, is_item: bool, ahead: Sequence[Block]) -> bool:
        """Whether the open chunk ends before a block."""
        opened = self.open
        if self._asked() and (is_question(text) or is_answer(text)):
            return is_question(text)
        if step is not None and opened.last_step and step == opened.last_step + 1:
            return False
        if self._goes_on(text, ahead):
            return False
        if is_item and step == 1 and opened.last_step > 0:
            return True
        if judged.begins <= 0.5:
            return False
        plain = judged.role in ("body", "footnote", "caption", "figure") and not opened.items
        return not plain or sum(map(len, opened.texts)) >= self.target_chars

    def _keep_lead_in(self) -> None:
        """Before a first step: end the chunk, but keep its last paragraph, which leads in, if that is short."""
        words = [len(text.split()) for text in self.open.texts]
        if sum(words[:-1]) <= MAX_ABOVE and words[-1] <= MAX_ABOVE:
            return
        texts, boxes = self.open.texts, self.open.boxes
        kept = 1 if words[-1] <= MAX_ABOVE and len(texts) == len(boxes) > 1 else 0
        self.open.texts, self.open.boxes = texts[: len(texts) - kept], boxes[: len(boxes) - kept]
        self._flush()
        self.open.texts, self.open.boxes = texts[len(texts) - kept :], boxes[len(boxes) - kept :]

    def _asked(self) -> bool:
        """Whether the open chunk holds a question."""
        return any(is_question(held) for held in self.open.texts)

    def _flag_of(self, text: str, judged: Judged, step: int | None, ahead: Sequence[Block]) -> Flag:
        """Whether the batch's first text goes on from the batch before."""
        if not self.context.last_chunks:
            return "False"
        procedure = self.context.open_procedure
        if procedure and step is not None and step == procedure.last_step + 1:
            return "True"
        if procedure and procedure.last_step:
            self.open.last_step = procedure.last_step
            going_on = self._steps_ahead(ahead)
            self.open.last_step = 0
            if going_on:
                return "True"
        found = FLAGS[int(judged.flag.argmax())]
        if found == "True" and self.context.open_table:
            return "False"  # a row that was cut has its own way
        return found

    def _write(self, text: str, block: Block) -> None:
        """Text alone does not close a table: the network tells whether the next one has a header of its own."""
        table = self.table
        super()._write(text, block)
        self.table = table

    def _is_cut(self, row: Row) -> bool:
        return self.table_begins <= 0.5

    def _flush(self) -> None:
        for block in self.notes:
            self.open.texts.append(block.text.strip())
            self.open.boxes.append(box_of(block))
        self.notes = []
        super()._flush()

    def _table(self, block: Block, table: Table) -> None:
        super()._table(block, table)
        self.table_place = (block.page, block.upright.y0)

    def _body(self, block: Block, table: Table) -> tuple[Sequence[Row], tuple[str, ...]]:
        """Rows and header: the open table's own where the network sees no header, or the same one again."""
        rows, own = table.rows, table.header
        elsewhere = block.page != self.table_page or block.upright.y0 < self.table_place[1]  # on a page, or in a column
        self.table_begins = self._of(block).begins if elsewhere else 1.0
        if self.table and len(self.table) == len(rows[0].cells):
            same = next((n for n in (1, 2, 3) if n < len(rows) and header_alike(stacked(rows[:n]), self.table)), 0)
            if same:
                return rows[same:], self.table
            if not table.num_header:
                return rows, self.table
        heads = table.num_header or (1 if table.ruled else 0)
        if not heads or len(rows) <= heads or not any(stacked(rows[:heads])):
            return rows, ()
        return rows[heads:], own or stacked(rows[:heads])
