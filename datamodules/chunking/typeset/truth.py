"""What is known of a typeset document: its blocks, chunks and page starts, and the files that hold them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ....registry import UserError
from ...files import atomic_write, write_json
from ..chunks import Box

SCHEMA_VERSION = 1
Role = Literal[
    "title",
    "heading1",
    "heading2",
    "heading3",
    "body",
    "step",
    "list_item",
    "table_header",
    "table_row",
    "caption",
    "footnote",
    "figure",
    "question",
    "answer",
    "header",
    "footer",
    "page_number",
    "contents_entry",
]
ROLES: tuple[Role, ...] = get_args(Role)
OUTSIDE_CHUNKS: frozenset[Role] = frozenset(
    ("title", "heading1", "heading2", "heading3", "table_header", "header", "footer", "page_number", "contents_entry")
)
"""Roles whose blocks belong to no chunk: headings and table headers travel with every chunk, the rest is left out."""
Flag = Literal["True", "False", "Partial"]
ChunkKind = Literal["text", "table_row", "steps", "list", "faq", "figure"]


@dataclass(frozen=True)
class Cell:
    """What a table row or header has in one column: text and the box around its glyphs; None where it is empty."""

    text: str
    box: Box | None


@dataclass(frozen=True)
class Part:
    """What of a block stands on one page (in one column of it).

    Attributes:
        box: around the part's glyphs; for a figure, its frame.
        text: this part's piece of the block's text; cells of a row are joined by tabs. A hyphen that the typesetter
            put at a line's end is not part of it.
        order: place in the document's reading order, from 0; footnotes come after their column's text.
        column: text column, from 0; -1 for what spans all of them.
        cells: a table row's or header's cells on this page; empty for other roles.
        hyphens: how many hyphens the typesetter put in.
    """

    box: Box
    text: str
    order: int
    column: int
    cells: tuple[Cell, ...] = ()
    hyphens: int = 0


@dataclass(frozen=True)
class Block:
    """One visual block.

    Attributes:
        id: unique in the document.
        role: what it is.
        text: the whole text, as printed but for line breaks and hyphens at a line's end.
        parts: one a page or column, in reading order.
        path: title and headings above it (its own included), outermost first.
        chunk: id of its chunk; empty for `OUTSIDE_CHUNKS`.
        table: id of its table, for headers, rows and captions of one.
        row: number of a table row, from 1; 0 for other roles.
        cells: texts of a row, one a column; of a header, the columns' full names, group heading first.
        repeated: whether it is a table header that stood on an earlier page already.
        procedure: id of the procedure, for steps and what belongs to them.
        step: number of a step, from 1; 0 for other roles.
    """

    id: int
    role: Role
    text: str
    parts: tuple[Part, ...]
    path: tuple[str, ...]
    chunk: str = ""
    table: str = ""
    row: int = 0
    cells: tuple[str, ...] = ()
    repeated: bool = False
    procedure: str = ""
    step: int = 0


@dataclass(frozen=True)
class Chunk:
    """One logical chunk after the paper's rules (arXiv 2506.16035, section 3): a row, a procedure, a question …

    Attributes:
        id: unique in the document, such as `c12`.
        kind: what it holds.
        headings: title, section and subject; a missing level is its parent.
        text: blocks' texts, one a line; a row is a markdown table of header and row.
        blocks: ids of its blocks.
        page_start, page_end: pages from 1, inclusive.
    """

    id: str
    kind: ChunkKind
    headings: tuple[str, str, str]
    text: str
    blocks: tuple[int, ...]
    page_start: int
    page_end: int


@dataclass(frozen=True)
class PageStart:
    """How a page goes on from the one before; furniture, contents entries and repeated table headers do not count.

    Attributes:
        page: from 1.
        block: id of the first block that counts; -1 where there is none.
        chunk: the chunk that starts the page, or begins under the heading that does; empty where there is none.
        continues: `True` if the chunk began on an earlier page (for a row: if it was cut), `Partial` if it is new text,
            a list or procedure under the same heading as the text, list, procedure or figure before it, else `False`.
    """

    page: int
    block: int
    chunk: str
    continues: Flag


@dataclass(frozen=True)
class Truth:
    """All that is known of a document; see the parts' own descriptions. Sizes of pages are in PDF points."""

    seed: int
    language: str
    genre: str
    style: dict[str, Any]
    page_sizes: tuple[tuple[float, float], ...]
    blocks: tuple[Block, ...]
    chunks: tuple[Chunk, ...]
    page_starts: tuple[PageStart, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def num_pages(self) -> int:
        """Pages of the document."""
        return len(self.page_sizes)

    def on_page(self, page: int) -> list[tuple[Block, Part]]:
        """Blocks with their parts on a page (from 1), in reading order."""
        found = [(block, part) for block in self.blocks for part in block.parts if part.box.page == page]
        return sorted(found, key=lambda pair: pair[1].order)

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dictionaries."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Truth:
        """The inverse of `to_json`.

        Raises:
            UserError: another schema version.
        """
        if content.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"the truth has schema version {content.get('schema_version')}, this release reads {SCHEMA_VERSION}\n"
                "typeset the document again from its seed"
            )
        return cls(
            **{
                **content,
                "page_sizes": tuple((float(w), float(h)) for w, h in content["page_sizes"]),
                "blocks": tuple(_block(b) for b in content["blocks"]),
                "chunks": tuple(
                    Chunk(**{**c, "headings": tuple(c["headings"]), "blocks": tuple(c["blocks"])})
                    for c in content["chunks"]
                ),
                "page_starts": tuple(PageStart(**s) for s in content["page_starts"]),
            }
        )


@dataclass(frozen=True)
class TypesetDocument:
    """A PDF and what is known of it."""

    pdf: bytes
    truth: Truth

    def write(self, stem: str | Path) -> None:
        """Write `<stem>.pdf` and `<stem>.truth.json`."""
        with atomic_write(f"{stem}.pdf") as temporary:
            temporary.write_bytes(self.pdf)
        write_json(f"{stem}.truth.json", self.truth.to_json())

    @classmethod
    def read(cls, stem: str | Path) -> TypesetDocument:
        """Read what `write` wrote.

        Raises:
            UserError: a file is missing, is no JSON, or has another schema version.
        """
        try:
            pdf = Path(f"{stem}.pdf").read_bytes()
            content = json.loads(Path(f"{stem}.truth.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the typeset document {stem}: {error}") from error
        return cls(pdf, Truth.from_json(content))


def _block(content: dict[str, Any]) -> Block:
    parts = tuple(
        Part(**{**p, "box": Box(**p["box"]), "cells": tuple(_cell(c) for c in p["cells"])}) for p in content["parts"]
    )
    return Block(**{**content, "parts": parts, "path": tuple(content["path"]), "cells": tuple(content["cells"])})


def _cell(content: dict[str, Any]) -> Cell:
    return Cell(content["text"], Box(**content["box"]) if content["box"] else None)
