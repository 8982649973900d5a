"""What chunks.jsonl itself tells: rules broken, words lost and invented. No reader is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.contract import TaggedChunk
from ....datamodules.chunking.pages import Document
from ....datamodules.chunking.rules import validate_chunks
from ....datamodules.chunking.verbatim import page_fidelity

COLUMNS = ["document", "pages", "chunks", "violations per 100 chunks", "token recall", "invented tokens"]
TITLE = "The contract, from the chunks alone"
NOTE = (
    "Recall counts every token of the text layer, running lines, page numbers and contents entries too, which the "
    "rules tell a reader to leave out: the summary of `fulgurite chunking chunk` leaves them out. Pages without a "
    "text layer are not counted."
)


def contract_row(pdf: Path, chunks: Sequence[Chunk]) -> list[Any]:
    """A document's row: name, pages, chunks, violations, and tokens found, wanted, invented and said."""
    with Document(pdf) as document:
        layers = {n: document.page(n).text for n in range(1, document.num_pages + 1)}
    tagged = [TaggedChunk(c.continues, c.headings, c.text) for c in chunks]
    broken = len(validate_chunks(tagged, printed="\n".join(layers.values())))
    pages = page_fidelity(chunks, {n: t for n, t in layers.items() if t.strip()})
    sums = [sum(getattr(p, name) for p in pages) for name in ("found", "num_tokens", "invented", "said")]
    return [pdf.name, len(layers), len(chunks), broken, *sums]


def contract_table(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The rows of all documents and their sum, as a table of results.json."""
    total = ["all", *(sum(r[k] for r in rows) for k in range(1, 8))]
    shown = [[name, pages, chunks, _share(100 * broken, chunks), _share(found, wanted), _share(new, said)]
             for name, pages, chunks, broken, found, wanted, new, said in (*rows, total)]  # fmt: skip
    return {"title": TITLE, "columns": COLUMNS, "rows": shown, "note": NOTE}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 5) if whole else None
