"""The baseline for PDFs with a text layer: hand-made rules, no model, no server, nothing to download."""

from __future__ import annotations

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import write
from ....datamodules.chunking.layout.blocks import page_blocks
from ....datamodules.chunking.layout.style import DocumentStyle, document_style
from ....datamodules.chunking.pages import Document, PageBatch
from ..layout.decide import TARGET_CHARS, Decider
from .protocol import READERS, PlacedAnswer

VERSION = "rules-3"  # of the decisions: another one gives other chunks


@READERS.register("rules", paper="2506.16035")
class RulesReader:
    """Reads the text layer's glyphs and the page's rules: columns, headings, tables, lists, paragraphs.

    Not the paper's method, which has a vision-language model write the chunks: a baseline that keeps the same contract.
    Pages without a text layer give nothing.

    Args:
        target_chars: length from which a chunk of plain text ends with its paragraph.
    """

    def __init__(self, target_chars: int = TARGET_CHARS) -> None:
        self.target_chars = target_chars
        self._style: tuple[Document, DocumentStyle] | None = None

    def settings(self) -> dict[str, str]:
        """Version of the rules, and the target length."""
        return {"version": VERSION, "target_chars": str(self.target_chars)}

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The batch's chunks in tagged text."""
        return write(c.tagged for c in self.read_placed(batch, context).chunks)

    def read_placed(self, batch: PageBatch, context: ChunkContext) -> PlacedAnswer:
        """The batch's chunks with their boxes."""
        decider = Decider(self._style_of(batch.document), context, self.target_chars)
        blocks = [block for page in batch.pages for block in page_blocks(page)]
        chunks = decider.read(blocks)
        return PlacedAnswer(tuple(chunks), decider.text_left_out(batch.pages))

    def _style_of(self, document: Document) -> DocumentStyle:
        if self._style is None or self._style[0] is not document:
            self._style = (document, document_style(document))
        return self._style[1]
