"""Our chunks as they are, under their headings."""

from __future__ import annotations

from ..retrieval.store import shown_text
from .source import ARMS, Piece, Source


@ARMS.register("ours", reads="chunks")
def ours(source: Source) -> list[Piece]:
    """A chunk of chunks.jsonl each: its headings, joined by ` > `, then its text."""
    return [Piece(shown_text(c), c.page_start, c.page_end) for c in source.chunks]
