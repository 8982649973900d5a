"""The default reader: the page's glyphs, rules and picture, judged block by block by the trained chunker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import write
from ....datamodules.chunking.layout.seen_page import SeenPage
from ....datamodules.chunking.layout.style import DocumentStyle, document_style
from ....datamodules.chunking.pages import Document, Page, PageBatch
from ....datamodules.chunking.typeset.truth import ROLES
from ..chunker.judge import PageJudge
from ..layout.decide import TARGET_CHARS
from ..layout.trained_decide import TrainedDecider
from .protocol import READERS, PlacedAnswer

VERSION = "trained-4"  # of the decoding: another one gives other chunks
TITLE = (ROLES.index("title"),)
MAX_TITLE_CHARS = 200
MIN_TITLE = 0.15  # of probability: a document has a title more often than not


@READERS.register("layout", paper="2506.16035")
class LayoutReader:
    """Reads the text layer's glyphs and the page's rules, and has the trained chunker say what each block is.

    Not the paper's method, which has a vision-language model write the chunks: the same contract at a few pages a
    second without one. Pages without a text layer give nothing.

    Args:
        target_chars: length from which a chunk of plain text ends with its paragraph.
        weights: folder of a trained chunker; None takes the released one.

    Raises:
        UserError: if there is no trained chunker.
    """

    def __init__(self, target_chars: int = TARGET_CHARS, weights: Path | None = None) -> None:
        self.target_chars = target_chars
        self.judge = PageJudge(weights)
        self._style: tuple[Document, DocumentStyle] | None = None

    def settings(self) -> dict[str, str]:
        """Version of the decoding, digest of the weights, and the target length."""
        return {"version": VERSION, "weights": self.judge.digest, "target_chars": str(self.target_chars)}

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The batch's chunks in tagged text."""
        return write(c.tagged for c in self.read_placed(batch, context).chunks)

    def read_placed(self, batch: PageBatch, context: ChunkContext) -> PlacedAnswer:
        """The batch's chunks with their boxes."""
        style = self._style_of(batch.document)
        judged = self.judge.judge(batch.pages, _seen(batch.pages, style), context)
        decider = TrainedDecider(style, context, judged, self.target_chars)
        chunks = decider.read([j.block for j in judged])
        return PlacedAnswer(tuple(chunks), decider.text_left_out(batch.pages))

    def _style_of(self, document: Document) -> DocumentStyle:
        if self._style is None or self._style[0] is not document:
            style = document_style(document)
            self._style = (document, self._titled(document, style))
        return self._style[1]

    def _titled(self, document: Document, style: DocumentStyle) -> DocumentStyle:
        """The style with the title that the chunker sees on the first page, where it sees one."""
        pages = (document.page(1),)
        judged = self.judge.judge(pages, _seen(pages, style), ChunkContext())
        texts = [j for j in judged if j.block.table is None and j.sum_of(TITLE) > MIN_TITLE]
        surest = max((j.sum_of(TITLE) for j in texts), default=0.0)
        found = [j for j in texts if j.sum_of(TITLE) >= min(0.5, surest)]
        title = " ".join(" ".join(j.block.text for j in found).split())
        return dataclasses.replace(style, title=title) if 0 < len(title) <= MAX_TITLE_CHARS else style


def _seen(pages: Sequence[Page], style: DocumentStyle) -> list[SeenPage]:
    return [SeenPage.of(page, style) for page in pages]
