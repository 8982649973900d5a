"""Our chunks packed to the encoder's window: neighbours under the same headings as one piece."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.lines import is_separator, table_of
from ..retrieval.encoder import WINDOW
from ..retrieval.store import heading_path, shown_text
from .source import ARMS, Piece, Source

ALONE = ("steps", "faq")  # what the paper's rules keep whole and to itself


@ARMS.register("ours_packed", reads="chunks")
def ours_packed(source: Source) -> list[Piece]:
    """Neighbouring chunks of the same three headings together, up to 510 tokens; rows of a table under its header once.

    A chunk a row spends most of a small budget on headers that say the same; here they are said once.
    """
    return [_piece(group) for group in _groups(source.chunks, source.encoder.count)]


def _groups(chunks: Sequence[Chunk], count: Callable[[str], int]) -> Iterator[list[Chunk]]:
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        header = _header(chunk)
        goes_on = bool(group) and group[-1].headings == chunk.headings
        goes_on = goes_on and chunk.kind not in ALONE and group[-1].kind not in ALONE
        more = count("\n".join(_lines(chunk, bare=goes_on and bool(header) and _header(group[-1]) == header)))
        if goes_on and size + more <= WINDOW:
            group.append(chunk)
            size += more
            continue
        if group:
            yield group
        group, size = [chunk], count(shown_text(chunk))
    if group:
        yield group


def _piece(group: Sequence[Chunk]) -> Piece:
    lines = [" > ".join(heading_path(group[0])), *_lines(group[0], bare=False)]
    for before, chunk in itertools.pairwise(group):
        lines += _lines(chunk, bare=bool(_header(chunk)) and _header(before) == _header(chunk))
    return Piece("\n".join(lines).strip(), min(c.page_start for c in group), max(c.page_end for c in group))


def _header(chunk: Chunk) -> tuple[str, ...]:
    table = table_of(chunk.text)
    return table[0] if table else ()


def _lines(chunk: Chunk, bare: bool) -> list[str]:
    """A chunk's lines; `bare` leaves out a row's header, which stands above it already."""
    lines = chunk.text.splitlines()
    top = next((k for k, line in enumerate(lines) if is_separator(line)), -1) if bare else -1
    return lines[top + 1 :]
