"""The trained chunker at work: pages and carried state in, judged blocks out.

Axis legend: N item.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.layout.features import related_features
from ....datamodules.chunking.layout.seen_page import SeenPage
from ....datamodules.chunking.layout.state import state_features, state_texts
from ....datamodules.chunking.layout.text_states import TextStates
from ....datamodules.chunking.module import MAX_ITEMS, collate
from ....datamodules.chunking.pages import Page
from ..layout.judged import Judged, Opinion, judge_page
from .trained import load_chunker


class PageJudge:
    """Judges the blocks of pages by the trained chunker.

    Args:
        weights: its folder; None takes the released one.

    Raises:
        UserError: if there is no trained chunker in it.
    """

    def __init__(self, weights: Path | None = None) -> None:
        self.network, config = load_chunker(weights)
        self.digest: str = config["weights"]
        self.encoder = TextStates()

    def judge(self, pages: Sequence[Page], seen: Sequence[SeenPage], context: ChunkContext) -> list[Judged]:
        """The blocks of pages, in order.

        Args:
            pages: of one batch.
            seen: the same pages, as the chunker sees them.
            context: carried over.
        """
        opinions = self._opinions(seen, context)
        columns = len(context.open_table)
        found: list[Judged] = []
        for page, one, opinion in zip(pages, seen, opinions, strict=True):
            strokes = one.blocks[0].frame.strokes(page.strokes) if one.blocks else []
            judged = judge_page(one, opinion, strokes, columns)
            tables = [j.block.table for j in judged if j.block.table is not None]
            columns = len(tables[-1].rows[0].cells) if tables else columns
            found += judged
        return found

    @torch.inference_mode()
    def _opinions(self, seen: Sequence[SeenPage], context: ChunkContext) -> list[Opinion]:
        """One a page; a batch of more than `MAX_ITEMS` items is judged in pieces, each with the same context."""
        items = [item for page in seen for item in page.items]
        own_NF = np.concatenate([page.own_NF for page in seen])
        related_NF = related_features(items, own_NF, context)
        texts = self.encoder.embed([*state_texts(context), *(i.encoded_text for i in items)])
        state_SC, text_NC = texts[: -len(items) or None], texts[len(texts) - len(items) :]
        crops_NHW = np.concatenate([page.crops_NHW for page in seen])
        page_N = np.asarray([i.page for i in items], np.int64) - (items[0].page if items else 0)
        parts = []
        for start in range(0, len(items), MAX_ITEMS):
            at = slice(start, start + MAX_ITEMS)
            batch = {
                "own": own_NF[at],
                "related": related_NF[at],
                "crops": crops_NHW[at],
                "text": text_NC[at],
                "page": page_N[at],
                "state": state_features(context),
                "state_text": state_SC,
            }
            told = self.network(collate([batch]))
            parts.append([x[0].softmax(-1).numpy() for x in (told.role, told.begins, told.flag)])
        if not parts:
            return [_nothing() for _ in seen]
        role, begins, flag = (np.concatenate(x) for x in zip(*parts, strict=True))
        found, at_item = [], 0
        for page in seen:
            own = slice(at_item, at_item + len(page.items))
            found.append(Opinion(role[own], begins[own, 1], flag[own]))
            at_item += len(page.items)
        return found


def _nothing() -> Opinion:
    return Opinion(np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0)))
