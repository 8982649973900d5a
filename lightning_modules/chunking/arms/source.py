"""What a way of chunking is given, what it gives, and the registry of ways."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.lines import is_separator, is_table_line, table_of
from ....registry import Registry
from ..retrieval.encoder import TextEncoder
from ..retrieval.store import heading_path

ARMS = Registry("arms")


@dataclass(frozen=True)
class Piece:
    """A chunk of an arm: what is searched, shown and scored.

    Attributes:
        text: all of it.
        page_start: first page, from 1.
        page_end: last page, inclusive.
    """

    text: str
    page_start: int
    page_end: int


class PagedText:
    """One long text that knows its pages.

    Args:
        parts: (text, page) in order; a text stands between two of them.
        between: what is put between two parts.
    """

    def __init__(self, parts: Iterable[tuple[str, int]], between: str) -> None:
        self.parts = held = list(parts)
        self.text = between.join(text for text, _ in held)
        self._starts, self._pages = [], []
        place = 0
        for text, page in held:
            self._starts.append(place)
            self._pages.append(page)
            place += len(text) + len(between)

    def page(self, place: int) -> int:
        """The page on which the character at a place stands."""
        return self._pages[max(bisect.bisect_right(self._starts, place) - 1, 0)]

    def piece(self, start: int, end: int) -> Piece | None:
        """The text from a place to another as a piece; None where it is blank."""
        text = self.text[start:end]
        if not text.strip():
            return None
        first, last = start + len(text) - len(text.lstrip()), start + len(text.rstrip()) - 1
        return Piece(text.strip(), self.page(first), self.page(last))

    def pieces(self, spans: Iterable[tuple[int, int]]) -> list[Piece]:
        """Pieces of spans, blank ones left out."""
        return [p for start, end in spans if (p := self.piece(start, end)) is not None]


@dataclass(frozen=True)
class Source:
    """A document, for every arm.

    Attributes:
        name: its file name.
        load_pages: gives the text of each page as pypdf extracts it; asked only by arms that want it.
        chunks: what our reader made of it.
        encoder: counts tokens and gives vectors.
    """

    name: str
    load_pages: Callable[[], Sequence[str]]
    chunks: Sequence[Chunk]
    encoder: TextEncoder

    @cached_property
    def plain(self) -> PagedText:
        """The pages' text, joined by blank lines."""
        return PagedText(((text, number) for number, text in enumerate(self.load_pages(), 1)), "\n\n")

    @cached_property
    def read(self) -> PagedText:
        """What our reader read, in its order, as markdown: headings where they change, a table's header once."""
        return PagedText(markdown(self.chunks), "\n\n")


def markdown(chunks: Sequence[Chunk]) -> Iterable[tuple[str, int]]:
    """Parts of a markdown text with their pages."""
    above: list[str] = []
    columns: tuple[str, ...] | None = None
    for chunk in chunks:
        names = heading_path(chunk)
        for level, name in enumerate(names, 1):
            if names[:level] != above[:level]:
                yield f"{'#' * level} {name}", chunk.page_start
                columns = None
        above = names
        table = table_of(chunk.text)
        header = table[0] if table else None
        if header and header == columns:
            rows = [line for line in chunk.text.splitlines() if line.strip()]
            top = next((k for k, line in enumerate(rows) if is_separator(line)), -1)
            own = [line for k, line in enumerate(rows) if k > top or not is_table_line(line)]
            yield "\n".join(own), chunk.page_start
        else:
            yield chunk.text, chunk.page_start
        columns = header
