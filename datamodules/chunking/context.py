"""What is carried from one batch of pages to the next: guidance for the reader, never text to be given out again.

The paper carries the last chunk(s) and the open headings (arXiv 2506.16035, section 3) and leaves open how many and
how long: here the last `MAX_CHUNKS`, each cut to its head, its table header and its last `TAIL_CHARS` characters, so
that an endless list does not fill the next prompt.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .contract import NUM_LEVELS, TaggedChunk, complete_headings, write
from .lines import is_bullet, kind_of, separator_line, step_number, table_line, table_of

MAX_CHUNKS = 2
TAIL_CHARS = 600
_CLOSING = re.compile(r"\b(?:final step|last step|this completes|you are done)\b", re.IGNORECASE)


@dataclass(frozen=True)
class OpenProcedure:
    """A procedure or list with which the last chunk ends.

    Attributes:
        subject: the chunk's third heading.
        last_step: number of its last numbered step; 0 for a bulleted list.
    """

    subject: str
    last_step: int


@dataclass(frozen=True)
class ChunkContext:
    """State at the end of a batch.

    Attributes:
        headings: the open path, three levels; () before a document's first chunk.
        last_chunks: the last chunks in tagged text, oldest first, cut.
        open_table: header cells of the table with whose row the last chunk ends; () if it ends otherwise.
        open_procedure: the procedure with which the last chunk ends, if any.
    """

    headings: tuple[str, ...] = ()
    last_chunks: tuple[str, ...] = ()
    open_table: tuple[str, ...] = ()
    open_procedure: OpenProcedure | None = None

    def advance(self, chunks: Sequence[TaggedChunk]) -> ChunkContext:
        """The context after these chunks, which follow the ones it was made from; none leaves it as it is."""
        state = self
        for chunk in chunks:
            headings = complete_headings(chunk.headings, state.headings)
            state = dataclasses.replace(
                state,
                headings=headings,
                open_table=_open_table(chunk, state),
                open_procedure=_open_procedure(chunk, headings, state),
            )
        if not chunks:
            return self
        kept = [_cut(c, complete_headings(c.headings, state.headings)) for c in chunks[-MAX_CHUNKS:]]
        return dataclasses.replace(state, last_chunks=(*self.last_chunks, *kept)[-MAX_CHUNKS:])

    def to_json(self) -> str:
        """The state as one line of JSON, always the same for the same state."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ChunkContext:
        """The state that `to_json` wrote."""
        held: dict[str, Any] = json.loads(text)
        procedure = held["open_procedure"]
        return cls(
            tuple(held["headings"]),
            tuple(held["last_chunks"]),
            tuple(held["open_table"]),
            OpenProcedure(**procedure) if procedure else None,
        )


def _open_table(chunk: TaggedChunk, before: ChunkContext) -> tuple[str, ...]:
    table = table_of(chunk.text)
    if table is None:
        return ()
    return table[0] or before.open_table


def _open_procedure(chunk: TaggedChunk, headings: tuple[str, ...], before: ChunkContext) -> OpenProcedure | None:
    kind = kind_of(chunk.text)
    lines = [line for line in chunk.text.splitlines() if line.strip()]
    if not lines or _CLOSING.search(lines[-1]):
        return None
    numbers = [n for line in lines if (n := step_number(line)) is not None]
    if kind == "steps" or (numbers and chunk.continues == "True" and before.open_procedure):
        return OpenProcedure(headings[-1], numbers[-1])
    if kind == "list" and is_bullet(lines[-1]):
        return OpenProcedure(headings[-1], 0)
    return before.open_procedure if chunk.continues == "True" else None


def _cut(chunk: TaggedChunk, headings: tuple[str, ...]) -> str:
    text = chunk.text
    if len(text) > TAIL_CHARS:
        table = table_of(text)
        header = [table_line(table[0]), separator_line(len(table[0]))] if table and table[0] else []
        text = "\n".join([*header, "… " + text[-TAIL_CHARS:].lstrip()])
    return write([TaggedChunk(chunk.continues, headings[:NUM_LEVELS], text)])
