"""Peers on a markdown text: what our reader read, cut at its headings."""

from __future__ import annotations

from .source import ARMS, PagedText, Piece, Source
from .text import cut_recursively


@ARMS.register("markdown_headers", reads="chunks")
def markdown_headers(source: Source) -> list[Piece]:
    """The reader's markdown cut at each heading; a section longer than 510 tokens is cut recursively.

    As LangChain's MarkdownHeaderTextSplitter followed by the recursive one. A section's headings stand above each part.
    """
    found: list[Piece] = []
    path: list[str] = []
    parts: list[tuple[str, int]] = []
    for text, page in [*source.read.parts, ("# ", 0)]:
        level = len(text) - len(text.lstrip("#")) if "\n" not in text and text.startswith("#") else 0
        if not level:
            parts.append((text, page))
            continue
        if parts:
            head = " > ".join(path)
            cut = cut_recursively(PagedText(parts, "\n\n"), source)
            found += [Piece(f"{head}\n{p.text}".strip(), p.page_start, p.page_end) for p in cut]
        parts = []
        path = [*path[: level - 1], text.lstrip("# ")]
    return found
