"""Numbered procedures of real documents, labelled by hand: where they stand, their first and their last words.

The documents are manuals of the development part; of their text nothing is kept but those few words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chunks import Chunk
from ..verbatim import tokens

MOST_AROUND = 100  # words: an introduction, what a last step says behind its first sentence
LABELS = Path(__file__).with_name("procedures.jsonl")


@dataclass(frozen=True)
class Procedure:
    """One procedure.

    Attributes:
        pdf: file name of the document.
        page_start: page of its first step, from 1.
        page_end: page of its last step.
        num_steps: how many it has.
        first: the first step's first words, without its number.
        last: last words of the last step, or of its first sentence.
    """

    pdf: str
    page_start: int
    page_end: int
    num_steps: int
    first: str
    last: str

    def is_whole(self, chunks: Sequence[Chunk]) -> bool:
        """Whether one chunk of its document, on its pages, holds the first words, behind them the last, and not much
        more: at most `MOST_AROUND` other words, or as many as the procedure has. A whole page as one chunk, or a whole
        document, is no answer.
        """
        begin, end = " ".join(tokens(self.first)), " ".join(tokens(self.last))
        for chunk in chunks:
            if chunk.page_start <= self.page_start and chunk.page_end >= self.page_end:
                text = " ".join(tokens(chunk.text))
                start = text.find(begin)
                stop = text.find(end, start + len(begin)) if start >= 0 else -1
                if stop >= 0:
                    inside = len(text[start : stop + len(end)].split())
                    if len(text.split()) - inside <= max(inside, MOST_AROUND):
                        return True
        return False


def labelled_procedures() -> list[Procedure]:
    """All that were labelled."""
    return [Procedure(**json.loads(line)) for line in LABELS.read_text(encoding="utf-8").splitlines()]
