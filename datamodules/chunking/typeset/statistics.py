"""What a set of typeset documents holds: roles, chunks, and the hard cases that a reader must get right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .truth import Block, Truth

HARD_CASES: dict[str, str] = {
    "cut_paragraph": "a paragraph goes on on the next page",
    "cut_in_column": "a block goes on in the next text column of its page",
    "cut_step": "a step goes on on the next page",
    "procedure_over_pages": "a procedure goes on on the next page",
    "interrupted_procedure": "a figure or note stands between two steps",
    "list_over_pages": "a list goes on on the next page",
    "table_over_pages": "a table goes on on the next page and repeats its header",
    "table_without_header": "a table goes on on the next page without a header",
    "cut_row": "a table row goes on on the next page",
    "grouped_header": "a header has cells over several columns",
    "empty_cell": "a table row has an empty cell",
    "heading_at_end": "a heading is the last thing on a page",
    "footnote": "a footnote stands on the page of its reference",
    "footnote_apart": "a block with a footnote is cut by a page's end",
    "faq_over_pages": "a question and its answer stand on two pages",
    "contents_page": "a contents page",
    "two_columns": "a page has two text columns",
    "mixed_columns": "pages with one and with two text columns",
    "hyphenated": "words are broken at a line's end",
    "unruled_table": "a table without rules",
    "figure_text": "a figure with text inside",
    "short_paragraph": "a short paragraph is joined to its neighbour",
    "partial_start": "a page starts with new text under the heading of the page before",
}
"""Names of the hard cases, and what they are."""


@dataclass
class Statistics:
    """Counts over a set of documents.

    Attributes:
        documents, pages: how many there are.
        roles: blocks by role.
        chunks: chunks by kind.
        flags: page starts by flag.
        cases: documents in which a hard case occurs, by its name.
        languages, genres: documents by language and by genre.
    """

    documents: int = 0
    pages: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    chunks: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    genres: Counter[str] = field(default_factory=Counter)


def count(truths: Iterable[Truth]) -> Statistics:
    """Statistics of documents."""
    total = Statistics()
    for truth in truths:
        total.documents += 1
        total.pages += truth.num_pages
        total.roles.update(block.role for block in truth.blocks)
        total.chunks.update(chunk.kind for chunk in truth.chunks)
        total.flags.update(start.continues for start in truth.page_starts)
        total.cases.update(set(hard_cases(truth)))
        total.languages[truth.language] += 1
        total.genres[truth.genre] += 1
    return total


def hard_cases(truth: Truth) -> Iterator[str]:
    """Names of `HARD_CASES` that occur in a document; a name may come several times."""
    for block in truth.blocks:
        yield from _of_block(block, truth)
    yield from _of_chunks(truth)
    yield from _of_tables(truth)
    columns = [{part.column for _, part in truth.on_page(page)} - {-1} for page in range(1, truth.num_pages + 1)]
    if any(1 in found for found in columns):
        yield "two_columns"
        if any(found == {0} for found in columns[:-1]):
            yield "mixed_columns"
    for page in range(1, truth.num_pages):
        flow = [b for b, _ in truth.on_page(page) if b.role not in ("header", "footer", "page_number", "footnote")]
        if flow and flow[-1].role in ("heading1", "heading2", "heading3"):
            yield "heading_at_end"
    if any(start.continues == "Partial" for start in truth.page_starts):
        yield "partial_start"


def _pages(block: Block) -> set[int]:
    return {part.box.page for part in block.parts}


def _of_block(block: Block, truth: Truth) -> Iterator[str]:
    over = len(_pages(block)) > 1
    cut = {"body": "cut_paragraph", "step": "cut_step", "table_row": "cut_row"}
    if over and block.role in cut:
        yield cut[block.role]
    if len(block.parts) > len(_pages(block)):
        yield "cut_in_column"
    if block.role == "table_row" and not all(block.cells):
        yield "empty_cell"
    if block.role == "table_header" and len(block.parts[0].cells) > len(block.cells):
        yield "grouped_header"
    if block.role == "table_header" and truth.style["rules"] == "none":
        yield "unruled_table"
    if block.role == "figure" and block.text:
        yield "figure_text"
    if block.role == "contents_entry":
        yield "contents_page"
    if any(part.hyphens for part in block.parts):
        yield "hyphenated"


def _of_chunks(truth: Truth) -> Iterator[str]:
    for chunk in truth.chunks:
        blocks = [truth.blocks[k] for k in chunk.blocks]
        over = chunk.page_end > chunk.page_start
        names = {"steps": "procedure_over_pages", "list": "list_over_pages", "faq": "faq_over_pages"}
        if over and chunk.kind in names:
            yield names[chunk.kind]
        if chunk.kind == "text" and sum(block.role == "body" for block in blocks) > 1 and len(blocks[0].path) > 1:
            yield "short_paragraph"
        if any(block.role == "footnote" for block in blocks):
            yield "footnote"
            if any(block.role in ("body", "answer") and len(_pages(block)) > 1 for block in blocks):
                yield "footnote_apart"
        if chunk.kind == "steps":
            steps = [block.id for block in blocks if block.role == "step"]
            between = [b for b in truth.blocks if steps[0] < b.id < steps[-1] and b.role in ("figure", "body")]
            if between:
                yield "interrupted_procedure"


def _of_tables(truth: Truth) -> Iterator[str]:
    rows: dict[str, set[int]] = {}
    headers: dict[str, set[int]] = {}
    for block in truth.blocks:
        if block.role in ("table_row", "table_header"):
            (rows if block.role == "table_row" else headers).setdefault(block.table, set()).update(_pages(block))
    for table, pages in rows.items():
        if len(pages) > 1:
            yield "table_over_pages" if headers[table] >= pages else "table_without_header"
