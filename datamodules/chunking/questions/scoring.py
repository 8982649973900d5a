"""Does a retrieved text hold the answer? String tests only, so that no model has a say.

Texts are compared without case, compatibility forms, white space and hyphens of any kind: a text layer loses spaces,
and breaks words. In answers, commas between digits go too (`18078` is found in `18,078`). A cell counts as found if its
row key is followed by it within the question's row window; strictly, if the same chunk holds the whole header row
before the row key: labels in order, at most `MAX_BETWEEN` letters between two. Without its header a row does not say
what its numbers are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from .question import Question, TableCell

MAX_BETWEEN = 12
CHUNK_BREAK = "\x1e"  # no key runs over it
_DROPPED = re.compile(r"[\s\-\u2010-\u2015\u2212\u00ad\u200b]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d)")
_EDGE = " .,;:!?'\"“”‘’"


def normalise(text: str) -> str:
    """A text in the form in which texts are compared."""
    return _DROPPED.sub("", unicodedata.normalize("NFKC", text).casefold())


def holds_answer(question: Question, texts: Sequence[str]) -> bool:
    """Whether retrieved texts hold the answer: all keys somewhere in them, or for a cell its row in one of them."""
    if question.cell is not None:
        return any(holds_row(question.cell, text) for text in texts)
    together = _THOUSANDS.sub("", CHUNK_BREAK.join(normalise(text) for text in texts))
    keys = [_THOUSANDS.sub("", normalise(key.strip(_EDGE))) for key in question.keys]
    return bool(keys) and all(key in together for key in keys)


def holds_row(cell: TableCell, text: str) -> bool:
    """Whether a text holds the row key and, within the row's window behind it, the cell."""
    return next(_rows(cell, normalise(text)), None) is not None


def holds_cell(cell: TableCell, text: str) -> bool:
    """The strict test: the whole header row, behind it the row key, and the cell within the row's window."""
    said = normalise(text)
    header = _header_end(cell.header_row, said)
    return header is not None and any(place >= header for place in _rows(cell, said))


def _rows(cell: TableCell, said: str) -> Iterator[int]:
    """Places of the row key that the cell follows."""
    key, value = normalise(cell.row_key), normalise(cell.cell)
    place = said.find(key)
    while place >= 0:
        behind = place + len(key)
        if value in said[behind : behind + cell.row_window]:
            yield place
        place = said.find(key, place + 1)


def _header_end(labels: Sequence[str], said: str) -> int | None:
    """Where the first whole header row ends."""
    names = [re.escape(n) for label in labels if (n := normalise(label))]
    found = re.search(f".{{0,{MAX_BETWEEN}}}?".join(names), said, re.DOTALL)
    return found.end() if found else None
