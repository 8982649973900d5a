"""A chunk that holds several questions is parted after merging, whoever wrote it: one question with its answer a chunk.

The rule is `faq_merged` of rules.py. A reader may see two questions of an FAQ as one, and `True` or a short neighbour
may bring them together, so this is looked at once, when all chunks are merged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from .chunks import PlacedChunk
from .contract import TaggedChunk
from .lines import question_lines
from .pages import Document, PageBatch
from .places import place_chunks


def part_questions(chunks: Iterable[PlacedChunk], document: Document) -> list[PlacedChunk]:
    """The chunks, each of at most one question: a second one begins a chunk of its own, flagged `False`.

    What stands before the first question stays with it. The parts' places are looked up in the text layer of the pages
    on which the whole stood.

    Args:
        chunks: merged ones, in order.
        document: where they stand.
    """
    return [part for chunk in chunks for part in _parts(chunk, document)]


def _parts(chunk: PlacedChunk, document: Document) -> Iterator[PlacedChunk]:
    starts = question_lines(chunk.tagged.text)
    if len(starts) < 2:
        yield chunk
        return
    lines = chunk.tagged.text.splitlines()
    cuts = [0, *starts[1:], len(lines)]
    texts = ["\n".join(lines[a:b]).strip() for a, b in itertools.pairwise(cuts)]
    headings = chunk.tagged.headings
    tagged = [TaggedChunk("False" if k else chunk.tagged.continues, headings, text) for k, text in enumerate(texts)]
    pages = sorted({b.page for b in chunk.boxes}) or range(chunk.page_start, chunk.page_end + 1)
    yield from place_chunks(tagged, PageBatch(document, tuple(document.page(n) for n in pages)))
