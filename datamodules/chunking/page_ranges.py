"""Is a chunk where it says it is? Its first words are looked for on the page where it begins, its last where it ends.

These are its first and last page, but for text that is set behind its place: a footnote that follows what goes on on
the next page ends the chunk on a page before its last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .chunks import Chunk
from .lines import table_of
from .verbatim import known_tokens, own_words, tokens, unknown

EDGE = 6  # words of a chunk's begin, and of its end


@dataclass(frozen=True)
class RangeCheck:
    """What the text layer says of the chunks' page ranges.

    Attributes:
        checked: chunks with words that begin and end on pages with a text layer.
        wrong: ids of those that it does not bear out.
        moved: chunks that could be moved a page on, since the pages there have a text layer too.
        moved_right: those of them that would be borne out there as well: what the check cannot tell.
    """

    checked: int
    wrong: tuple[str, ...]
    moved: int
    moved_right: int

    @property
    def right(self) -> int:
        """Chunks that are borne out."""
        return self.checked - len(self.wrong)


def check_ranges(chunks: Sequence[Chunk], layers: Mapping[int, str]) -> RangeCheck:
    """Look the chunks' first and last words up in the text of their first and last page.

    Headings that a chunk took in as text may stand pages before it: they count if the chunk is borne out with them, and
    are left out if it is borne out without.

    Args:
        chunks: of one document.
        layers: page number -> its text; empty where there is none.
    """
    known = {page: known_tokens(text) for page, text in layers.items() if text.strip()}
    headings = {h for chunk in chunks for h in chunk.headings}
    checked = moved = moved_right = 0
    wrong: list[str] = []
    for chunk in chunks:
        lines = own_words(chunk).splitlines()
        parts = [tokens("\n".join(part)) for part in (lines, [x for x in lines if x.strip() not in headings])]
        pages = [b.page for b in chunk.boxes] or [chunk.page_start, chunk.page_end]
        if not parts[0] or pages[0] not in known or pages[-1] not in known:
            continue
        checked += 1
        row = table_of(chunk.text) is not None
        whole = (min(pages), max(pages)) == (chunk.page_start, chunk.page_end)
        if not whole or not any(_borne_out(words, pages, known, row) for words in parts):
            wrong.append(chunk.id)
        if pages[0] + 1 in known and pages[-1] + 1 in known:
            moved += 1
            moved_right += any(_borne_out(words, [p + 1 for p in pages], known, row) for words in parts)
    return RangeCheck(checked, tuple(wrong), moved, moved_right)


def _borne_out(words: Sequence[str], pages: Sequence[int], known: Mapping[int, Counter[str]], row: bool) -> bool:
    """Whether the words begin on the first of some pages and end on the last of them.

    Of a chunk over pages as little as a word may stand there: the others of its begin and end may stand on another of
    its pages. A row that is cut may end in any of its cells.
    """
    if not words:
        return False
    size = min(EDGE, -(-len(words) // 2))
    first, last = known[pages[0]], known[pages[-1]]
    if len(set(pages)) == 1:
        return not unknown(words[:size], first) and not unknown(words[-size:], first)
    anywhere = sum((known.get(p, Counter()) for p in set(pages)), Counter())
    if unknown(words[:1], first) or unknown(words[:size], anywhere):
        return False
    if row:
        return len(unknown(words, last)) < len(words)
    return not unknown(words[-1:], last) and not unknown(words[-size:], anywhere)
