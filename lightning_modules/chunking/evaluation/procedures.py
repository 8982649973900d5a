"""Numbered procedures of known documents: how many stay in one chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.questions.procedures import MOST_AROUND, labelled_procedures


def procedure_scores(chunks: Mapping[str, Sequence[Chunk]]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A table and metrics for documents with labelled procedures; nothing for others.

    Args:
        chunks: file name -> all its chunks.
    """
    rows: list[list[Any]] = []
    right = total = right_over = over = by_page = 0
    for name in sorted(chunks):
        own = [p for p in labelled_procedures() if p.pdf == name]
        if not own:
            continue
        whole = [p.is_whole(chunks[name]) for p in own]
        pages = sum(p.is_whole(_a_chunk_a_page(chunks[name])) for p in own)
        long = [w for p, w in zip(own, whole, strict=True) if p.page_end > p.page_start]
        rows.append([name, len(own), sum(whole), pages, len(long), sum(long)])
        right, total, by_page = right + sum(whole), total + len(own), by_page + pages
        right_over, over = right_over + sum(long), over + len(long)
    if not rows:
        return [], {}
    rows.append(["all", total, right, by_page, over, right_over])
    table = {
        "title": "Numbered procedures labelled by hand",
        "columns": [
            "document",
            "procedures",
            "in one chunk",
            "with a chunk a page",
            "over pages",
            "of those in one chunk",
        ],
        "rows": rows,
        "note": f"In one chunk: it holds the first step's first words, behind them the last step's last, and at most "
        f"{MOST_AROUND} other words, or as many as the procedure has. With a chunk a page: its words cut at pages.",
    }
    return [table], {"test/procedures/whole": right / total, "test/procedures/whole_a_chunk_a_page": by_page / total}


def _a_chunk_a_page(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The control: all that begins on a page as one chunk."""
    pages: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        pages.setdefault(chunk.page_start, []).append(chunk)
    return [replace(own[0], text="\n".join(c.text for c in own), page_end=page) for page, own in pages.items()]
