"""Is a chunk where it says it is? Its first words are looked for on its first page, its last words on its last page."""

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
        checked: chunks with words whose first and last page have a text layer.
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

    Headings that a chunk took in as text are left out, since they may stand pages before it.

    Args:
        chunks: of one document.
        layers: page number -> its text; empty where there is none.
    """
    known = {page: known_tokens(text) for page, text in layers.items() if text.strip()}
    headings = {h for chunk in chunks for h in chunk.headings}
    checked = moved = moved_right = 0
    wrong: list[str] = []
    for chunk in chunks:
        lines = [line for line in own_words(chunk).splitlines() if line.strip() not in headings]
        words = tokens("\n".join(lines))
        first, last = chunk.page_start, chunk.page_end
        if not words or first not in known or last not in known:
            continue
        checked += 1
        row = table_of(chunk.text) is not None
        if not _borne_out(words, first, last, known, row):
            wrong.append(chunk.id)
        if first + 1 in known and last + 1 in known:
            moved += 1
            moved_right += _borne_out(words, first + 1, last + 1, known, row)
    return RangeCheck(checked, tuple(wrong), moved, moved_right)


def _borne_out(words: Sequence[str], first: int, last: int, known: Mapping[int, Counter[str]], row: bool) -> bool:
    """Whether the words begin on one page and end on the other.

    Of a chunk over pages as little as a word may stand on the first or last one: the others of its begin and end may
    stand on the pages between. A row that is cut may end in any of its cells.
    """
    size = min(EDGE, -(-len(words) // 2))
    if first == last:
        return not unknown(words[:size], known[first]) and not unknown(words[-size:], known[first])
    begun, ended = words[:1], words[-1:]
    if unknown(begun, known[first]) or unknown(words[:size], known[first] | known.get(first + 1, Counter())):
        return False
    if row:
        return len(unknown(words, known[last])) < len(words)
    return not unknown(ended, known[last]) and not unknown(words[-size:], known[last] | known.get(last - 1, Counter()))
