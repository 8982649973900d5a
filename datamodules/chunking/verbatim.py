"""Is the text the page's own? Token recall and invented tokens, page by page, against a text layer or OCR.

A token is a run of letters and digits, compared without case and compatibility forms (ligatures). A word that the page
breaks over two lines with a hyphen counts as found if either its parts or the whole stand in the chunks.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .chunks import Chunk
from .lines import FIGURE_MARK, table_of

_TOKEN = re.compile(r"[^\W_]+")
_BROKEN = re.compile(r"([^\W_]+)(?:[-\u2010][ \t]*\r?\n[ \t]*|\u00ad\s*)([^\W_]+)")  # U+00AD: a line ends


@dataclass(frozen=True)
class PageFidelity:
    """One page's numbers.

    Attributes:
        page: page number, from 1.
        num_tokens: tokens of the text layer that count.
        dropped: those that do not, since the rules tell to leave them out (running lines, page numbers, contents).
        found: how many of them the page's chunks hold.
        said: tokens of the chunks that this page shares in.
        invented: those of them that neither the page nor any other of the chunk's pages or headings holds.
    """

    page: int
    num_tokens: int
    dropped: int
    found: int
    said: int
    invented: int


def tokens(text: str) -> list[str]:
    """Tokens of a text in order, in the form in which they are compared."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def known_tokens(layer: str) -> Counter[str]:
    """Tokens of a text layer, with the whole words beside the parts that a line break cuts."""
    text = unicodedata.normalize("NFKC", layer)
    whole = [a + b for a, b in _BROKEN.findall(text)]
    return Counter([*tokens(text), *(w.casefold() for w in whole)])


def invented(text: str, layer: str) -> list[str]:
    """Tokens of a text that the layer does not hold, in order of appearance."""
    return unknown(tokens(text), known_tokens(layer))


def unknown(words: Sequence[str], known: Mapping[str, int]) -> list[str]:
    """Those of some tokens that are none of `known` (`known_tokens`), in their order."""
    return [t for t in words if t not in known and not _is_compound(t, known)]


def _is_compound(token: str, known: Mapping[str, int]) -> bool:
    """Whether a token is two neighbouring ones of the page written together, as where a line ends in a hyphen."""
    return any(token[:cut] in known and token[cut:] in known for cut in range(2, len(token) - 1))


def page_fidelity(
    chunks: Sequence[Chunk], layers: Mapping[int, str], left_out: Mapping[int, str] | None = None
) -> list[PageFidelity]:
    """The numbers of each page that has a text layer, in order.

    Args:
        chunks: the document's chunks.
        layers: page number -> its text.
        left_out: page number -> text that the rules tell a reader to drop (page numbers, running lines, contents).
    """
    found = []
    standing: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        for page in range(chunk.page_start, chunk.page_end + 1):
            standing.setdefault(page, []).append(chunk)
    for page in sorted(layers):
        own = standing.get(page, [])
        wanted = Counter(tokens(layers[page]))
        everything = sum(wanted.values())
        wanted.subtract(Counter(tokens((left_out or {}).get(page, ""))))
        wanted = +wanted
        said = Counter(t for c in own for t in tokens(own_words(c)))
        for text in {h for c in own for h in c.headings} | {" ".join(_header(c)) for c in own}:
            said.update(tokens(text))
        parts = _parts_of_joined(layers[page], said)
        hit = sum(min(n, said[t] + parts[t]) for t, n in wanted.items())
        sentences = [own_words(c) for c in own]
        known = "\n".join(layers.get(p, "") for p in _pages(own)) + "\n" + "\n".join(h for c in own for h in c.headings)
        new = invented("\n".join(sentences), known) if known.strip() else []
        total = sum(len(tokens(s)) for s in sentences)
        counted = sum(wanted.values())
        found.append(PageFidelity(page, counted, everything - counted, hit, total, len(new)))
    return found


def _pages(chunks: Iterable[Chunk]) -> list[int]:
    return sorted({p for c in chunks for p in range(c.page_start, c.page_end + 1)})


def _header(chunk: Chunk) -> tuple[str, ...]:
    table = table_of(chunk.text)
    return table[0] if table else ()


def own_words(chunk: Chunk) -> str:
    """A chunk's own words: a table row's without the header that it repeats, a figure's without its mark."""
    table = table_of(chunk.text)
    if table is None or not table[0]:
        return chunk.text.replace(FIGURE_MARK, "")
    return "\n".join(" ".join(row) for row in table[1])


def _parts_of_joined(layer: str, said: Mapping[str, int]) -> Counter[str]:
    parts: Counter[str] = Counter()
    for first, second in _BROKEN.findall(unicodedata.normalize("NFKC", layer)):
        if (first + second).casefold() in said:
            parts.update((first.casefold(), second.casefold()))
    return parts
