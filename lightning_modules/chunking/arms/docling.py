"""Docling's HybridChunker, on a document made from what our reader read, and on one made from plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.lines import is_bullet, step_number, table_of
from ....registry import UserError, install_line
from ..retrieval.encoder import WINDOW
from ..retrieval.store import heading_path
from .source import ARMS, Piece, Source

NEEDS = f"this arm needs the package docling-core\n{install_line('chunking')}"
_BLANK_LINES = re.compile(r"\n\s*\n")


@ARMS.register("docling", reads="chunks")
def docling(source: Source) -> list[Piece]:
    """HybridChunker with 510 tokens on our reader's headings, paragraphs, lists and tables, each table whole."""
    return _chunked(_from_chunks(source.name, source.chunks), source)


@ARMS.register("docling_text", reads="text")
def docling_text(source: Source) -> list[Piece]:
    """HybridChunker with 510 tokens on pypdf's text: a text item for each run of lines without a blank one."""
    document = _types().DoclingDocument(name=source.name)
    for number, text in enumerate(source.load_pages(), 1):
        for part in _BLANK_LINES.split(text):
            if part.strip():
                _add_text(document, part.strip(), number)
    return _chunked(document, source)


def _from_chunks(name: str, chunks: Iterable[Chunk]) -> Any:
    """A DoclingDocument: headings where they change, rows under the same header as one table, lists item by item."""
    document = _types().DoclingDocument(name=name)
    above: list[str] = []
    rows: list[Chunk] = []
    columns: tuple[str, ...] = ()
    for chunk in chunks:
        names = heading_path(chunk)
        table = table_of(chunk.text)
        if rows and (table is None or table[0] != columns or names != above):
            _add_table(document, columns, rows)
            rows = []
        for level, text in enumerate(names, 1):
            if names[:level] != above[:level]:
                document.add_heading(text, level=level, prov=_place(chunk.page_start, text))
        above = names
        if table is not None and table[0]:
            columns = table[0]
            rows.append(chunk)
        elif chunk.kind in ("steps", "list"):
            _add_list(document, chunk)
        else:
            _add_text(document, chunk.text, chunk.page_start, chunk.page_end)
    if rows:
        _add_table(document, columns, rows)
    return document


def _add_text(document: Any, text: str, page: int, last: int = 0) -> None:
    item = document.add_text(label=_types().DocItemLabel.TEXT, text=text, prov=_place(page, text))
    if last > page:
        item.prov.append(_place(last, text))


def _add_list(document: Any, chunk: Chunk) -> None:
    group = document.add_list_group()
    for line in chunk.text.splitlines():
        if line.strip():
            numbered = step_number(line) is not None
            if numbered or is_bullet(line):
                mark, _, said = line.strip().partition(" ")
                document.add_list_item(
                    said, enumerated=numbered, marker=mark, parent=group, prov=_place(chunk.page_start, said)
                )
            else:
                _add_text(document, line.strip(), chunk.page_start, chunk.page_end)


def _add_table(document: Any, columns: tuple[str, ...], chunks: list[Chunk]) -> None:
    types = _types()
    held = [columns, *(row for c in chunks for row in (table_of(c.text) or ((), []))[1])]
    width = max(map(len, held))
    cells = [
        types.TableCell(
            text=row[k] if k < len(row) else "", column_header=number == 0,
            start_row_offset_idx=number, end_row_offset_idx=number + 1,
            start_col_offset_idx=k, end_col_offset_idx=k + 1,
        )
        for number, row in enumerate(held) for k in range(width)
    ]  # fmt: skip
    data = types.TableData(table_cells=cells, num_rows=len(held), num_cols=width)
    item = document.add_table(data=data, prov=_place(chunks[0].page_start, ""))
    item.prov += [_place(page, "") for page in range(chunks[0].page_start + 1, chunks[-1].page_end + 1)]
    for chunk in chunks:  # notes that stand with a row are paragraphs behind the table
        notes = [line for line in chunk.text.splitlines() if line.strip() and not line.strip().startswith("|")]
        if notes:
            _add_text(document, "\n".join(notes), chunk.page_start, chunk.page_end)


def _place(page: int, text: str) -> Any:
    types = _types()
    box = types.BoundingBox(l=0, t=0, r=1, b=1, coord_origin=types.CoordOrigin.TOPLEFT)
    return types.ProvenanceItem(page_no=page, bbox=box, charspan=(0, len(text)))


def _chunked(document: Any, source: Source) -> list[Piece]:
    """The chunker's chunks under their headings. Tables are markdown, with the header repeated where one is cut."""
    from docling_core.transforms.chunker.hierarchical_chunker import (
        ChunkingDocSerializer,
        ChunkingSerializerProvider,
    )
    from docling_core.transforms.chunker.hybrid_chunker import HybridChunker
    from docling_core.transforms.chunker.tokenizer.base import BaseTokenizer
    from docling_core.transforms.serializer.markdown import MarkdownTableSerializer

    encoder = source.encoder

    class Counter(BaseTokenizer):
        def count_tokens(self, text: str) -> int:
            return encoder.count(text)

        def get_max_tokens(self) -> int:
            return WINDOW

        def get_tokenizer(self) -> Any:
            return encoder.count

    class Markdown(ChunkingSerializerProvider):
        def get_serializer(self, doc: Any) -> ChunkingDocSerializer:
            return ChunkingDocSerializer(doc=doc, table_serializer=MarkdownTableSerializer())

    chunker = HybridChunker(tokenizer=Counter(), serializer_provider=Markdown())
    found = []
    for chunk in chunker.chunk(document):
        pages = [p.page_no for item in getattr(chunk.meta, "doc_items", ()) for p in item.prov]
        text = chunker.contextualize(chunk).strip()
        if text and pages:
            found.append(Piece(text, min(pages), max(pages)))
    return found


def _types() -> Any:
    try:
        import docling_core.types.doc as types
    except ImportError:
        raise UserError(NEEDS) from None
    return types
