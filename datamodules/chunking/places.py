"""Where a chunk stands: its words looked up in the text layer of its pages, for readers that give text alone.

A chunk is followed word by word through the layer; where the thread is lost it is taken up at the next run of three
words that has not been used. The header that a table row repeats is left out, so that a row's place is the row's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .chunks import Box, PlacedChunk
from .contract import TaggedChunk
from .lines import table_of
from .pages import PageBatch
from .verbatim import tokens
from .words import Word, words_of

LOOK_AHEAD = 6
RUN = 3


def place_chunks(chunks: Sequence[TaggedChunk], batch: PageBatch) -> list[PlacedChunk]:
    """The chunks with boxes and pages; one that is not found stands on its neighbours' pages, without boxes.

    Args:
        chunks: chunks of one answer, in order.
        batch: the pages that were read.
    """
    thread = _Thread([(page.number, word) for page in batch.pages for word in words_of(page)])
    boxes = [thread.follow(_own_tokens(chunk.text)) for chunk in chunks]
    first, last = batch.numbers[0], batch.numbers[-1]
    placed = []
    for k, chunk in enumerate(chunks):
        pages = [b.page for b in boxes[k]]
        if not pages:
            before = [b.page for held in boxes[:k] for b in held]
            after = [b.page for held in boxes[k + 1 :] for b in held]
            low = max(before, default=first)
            pages = [low, max(low, min(after, default=last))]
        placed.append(PlacedChunk(chunk, tuple(boxes[k]), min(pages), max(pages)))
    return placed


def _own_tokens(text: str) -> list[str]:
    table = table_of(text)
    if table is None or not table[0]:
        return tokens(text)
    return [t for row in table[1] for cell in row for t in tokens(cell)]


class _Thread:
    def __init__(self, words: Sequence[tuple[int, Word]]) -> None:
        self.places = [(page, word) for page, word in words for _ in tokens(word.text)]
        self.texts = [t for _, word in words for t in tokens(word.text)]
        self.used = [False] * len(self.texts)
        self.runs: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for length in (1, RUN):
            for k in range(len(self.texts) - length + 1):
                self.runs[tuple(self.texts[k : k + length])].append(k)
        self.at = 0

    def follow(self, wanted: list[str]) -> list[Box]:
        hits: list[int] = []
        for k, token in enumerate(wanted):
            end = min(self.at + LOOK_AHEAD, len(self.texts))
            spot = next((j for j in range(self.at, end) if self.texts[j] == token and not self.used[j]), None)
            if spot is None or (not hits and spot != self.at):
                spot = self._jump(tuple(wanted[k : k + RUN]), bool(hits), spot)
            if spot is not None:
                self.used[spot] = True
                hits.append(spot)
                self.at = spot + 1
        return boxes_of(self.places[k] for k in sorted(hits))

    def _jump(self, run: tuple[str, ...], begun: bool, otherwise: int | None) -> int | None:
        """The nearest unused place of a run of words; a word alone only opens a chunk where it stands but once."""
        free = [j for j in self.runs.get(run, ()) if not self.used[j]] if len(run) in (1, RUN) else []
        if free and (len(run) == RUN or (len(free) == 1 and not begun)):
            return min(free, key=lambda j: (j < self.at, abs(j - self.at)))
        return otherwise


def boxes_of(words: Iterable[tuple[int, Word]]) -> list[Box]:
    """Boxes around words in reading order: a new one for each page and column."""
    found: list[Box] = []
    last: Word | None = None
    for page, word in words:
        box = Box(page, word.x0, word.y0, word.x1, word.y1)
        up = last is not None and word.y1 < last.y0 - last.size
        if last is None or not found or found[-1].page != page or up:
            found.append(box)
        else:
            b = found[-1]
            found[-1] = Box(page, min(b.x0, box.x0), min(b.y0, box.y0), max(b.x1, box.x1), max(b.y1, box.y1))
        last = word
    return found
