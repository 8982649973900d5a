"""`fulgurite chunking compare`: readers side by side, on typeset documents with known truth and on a folder of PDFs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...registry import COMMANDS

if TYPE_CHECKING:
    from ...datamodules.chunking.context import ChunkContext
    from ...datamodules.chunking.pages import PageBatch
    from ...datamodules.chunking.typeset.scores import Scores
    from .readers.protocol import PlacedAnswer, PlacingReader

NAMES = {
    "rows": "rows as one chunk with the full header",
    "rows_ruled": "… in tables with rules",
    "rows_later": "… on later pages of their table",
    "rows_no_header": "… on pages that do not repeat the header",
    "rows_next_batch": "… in a batch that does not show the header",
    "procedures": "procedures in one chunk",
    "procedures_over_pages": "… that go over pages",
    "procedures_over_batches": "… that go over batches",
    "heading1": "first heading right",
    "heading2": "second heading right",
    "heading3": "third heading right",
    "flags": "flag right at a batch's begin",
    "flags_True": "… where it is True",
    "flags_False": "… where it is False",
    "flags_Partial": "… where it is Partial",
}
BATCHES = (1, 4)
FORGETS = "layout, nothing carried"


class Forgetting:
    """A reader that is given nothing of the batch before, to tell what the carried context is worth.

    Args:
        reader: that reads.
    """

    def __init__(self, reader: PlacingReader) -> None:
        self._reader = reader

    def settings(self) -> dict[str, str]:
        """The reader's own, and that it forgets."""
        return {**self._reader.settings(), "context": "none"}

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The batch's chunks in tagged text."""
        return self._reader.read(batch, type(context)())

    def read_placed(self, batch: PageBatch, context: ChunkContext) -> PlacedAnswer:
        """The batch's chunks with their boxes."""
        return self._reader.read_placed(batch, type(context)())


@dataclass
class RealCounts:
    """What was counted on documents without a truth."""

    pages: int = 0
    chunks: int = 0
    rows: int = 0
    steps: int = 0
    violations: int = 0
    words: int = 0
    found: int = 0
    left_out: int = 0
    said: int = 0
    invented: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)


@COMMANDS.register("chunking compare", paper="2506.16035")
def compare(
    out: Path,
    weights: Path | None = None,
    num_documents: int = 40,
    first_seed: int = 2_000_000,
    pdfs: list[Path] = [],  # noqa: B006 (read only; a tuple would not come from YAML)
    max_pages: int = 40,
) -> None:
    """Compare the trained reader with the rules, and with itself: batches of one page and of four, nothing carried.

    Args:
        out: folder for results.json.
        weights: folder of a trained chunker; default: the released one.
        num_documents: typeset documents, of seeds that no training sees.
        first_seed: seed of the first.
        pdfs: real documents, of which contract, words and speed are measured.
        max_pages: pages of each that are read.
    """
    from ...datamodules.files import write_json
    from .readers.layout import LayoutReader
    from .readers.rules import RulesReader

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    readers: dict[str, PlacingReader] = {"rules": RulesReader(), "layout": LayoutReader(weights=weights)}
    compared = {**readers, FORGETS: Forgetting(readers["layout"])}
    scores = _typeset_scores(compared, range(first_seed, first_seed + num_documents), console)
    tables = [_scores_table(scores, list(compared), num_documents)]
    metrics: dict[str, float] = {}
    for (reader, pages), held in scores.items():
        shares = {name: held.share(name) for name in NAMES}
        key = "nothing_carried" if reader == FORGETS else reader
        metrics |= {f"{key}/b{pages}/{name}": value for name, value in shares.items() if value is not None}
    if pdfs:
        counts = {name: _real_counts(reader, name, pdfs, max_pages, console) for name, reader in readers.items()}
        tables.append(_real_table(counts, len(pdfs), max_pages))
    rows = {name: scores[name, 4].share("rows") or 0.0 for name in readers}
    statement = (
        f"On {num_documents} typeset documents that no training saw, four pages at a time, the trained reader gives "
        f"{rows['layout']:.1%} of the table rows as one chunk with the full header, the rules {rows['rules']:.1%}."
    )
    said = [statement]
    for pages in BATCHES:
        later = [scores[name, pages].share("rows_next_batch") for name in ("layout", FORGETS)]
        if None not in later:
            said.append(
                f"In batches of {pages} {'page' if pages == 1 else 'pages'}, of the rows in a batch that does not show "
                f"their header {later[0]:.1%} have it, with nothing carried over {later[1]:.1%}."
            )
    write_json(out / "results.json", {"schema_version": 1, "metrics": metrics, "statements": said, "tables": tables})
    for table in tables:
        console.print(table["title"])
        for line in [table["columns"], *table["rows"]]:
            console.print("  " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in line), markup=False)


def _typeset_scores(
    readers: dict[str, PlacingReader], seeds: Sequence[int], console: Console
) -> dict[tuple[str, int], Scores]:
    from ...datamodules.chunking.typeset.document import typeset_document
    from ...datamodules.chunking.typeset.scores import Scores

    found = {(name, pages): Scores() for name in readers for pages in BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        for done, seed in enumerate(seeds, 1):
            made = typeset_document(seed)
            file = Path(folder) / f"{seed}.pdf"
            file.write_bytes(made.pdf)
            for (name, pages), held in found.items():
                chunks, flags = read_with_flags(file, readers[name], name, pages)
                held.add(made.truth, chunks, flags, pages)
            file.unlink()
            if done % 10 == 0 or done == len(seeds):
                console.print(f"compared on {done} of {len(seeds)} typeset documents")
    return found


def read_with_flags(file: Path, reader: PlacingReader, name: str, batch_pages: int) -> tuple[list[Any], dict[int, str]]:
    """A document's chunks, and the flag of each batch's first chunk before merging, by the batch's first page."""
    from ...datamodules.chunking.merging import MergePolicy
    from ...datamodules.chunking.pages import Document
    from .reading import read_batches, read_document

    flags: dict[int, str] = {}
    with Document(file) as document, tempfile.TemporaryDirectory() as folder:
        numbers = list(range(1, document.num_pages + 1))
        journal = Path(folder) / "journal"
        result = read_document(document, reader, name, numbers, batch_pages, MergePolicy(), journal)
        for part in read_batches(journal):
            if part.chunks:
                flags[part.pages[0]] = part.chunks[0].tagged.continues
    return result.chunks, flags


def _scores_table(scores: dict[tuple[str, int], Scores], readers: Sequence[str], num_documents: int) -> dict[str, Any]:
    columns = ["share of cases", "cases", *(f"{r}, b = {b}" for r in readers for b in BATCHES)]
    rows = []
    for name, words in NAMES.items():
        held = [scores[r, b] for r in readers for b in BATCHES]
        cases = "/".join(dict.fromkeys(str(s.all[name]) for s in held))
        rows.append([words, cases, *(s.share(name) for s in held)])
    return {"title": f"{num_documents} typeset documents that no training saw", "columns": columns, "rows": rows}


def _real_counts(
    reader: PlacingReader, name: str, pdfs: Sequence[Path], max_pages: int, console: Console
) -> RealCounts:
    from ...datamodules.chunking.merging import MergePolicy
    from ...datamodules.chunking.pages import Document
    from ...registry import UserError
    from .reading import read_document

    total = RealCounts()
    for pdf in pdfs:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with Document(pdf) as document:
                    numbers = list(range(1, min(document.num_pages, max_pages) + 1))
                    journal = Path(folder) / "journal"
                    result = read_document(document, reader, name, numbers, 4, MergePolicy(), journal)
            except UserError as error:
                total.failed.append(pdf.name)
                console.print(f"{pdf.name}: {error}", markup=False)
                continue
        total.pages += len(result.pages)
        total.chunks += len(result.chunks)
        total.rows += sum(c.kind == "table_row" for c in result.chunks)
        total.steps += sum(c.kind == "steps" for c in result.chunks)
        total.violations += len(result.violations)
        total.seconds += result.seconds
        for page in result.fidelity:
            total.words += page.num_tokens
            total.found += page.found
            total.left_out += page.dropped
            total.said += page.said
            total.invented += page.invented
        console.print(f"{name}: read {pdf.name}", markup=False)
    return total


def _real_table(counts: dict[str, RealCounts], num_pdfs: int, max_pages: int) -> dict[str, Any]:
    def row(words: str, *values: Any) -> list[Any]:
        return [words, *values]

    held = list(counts.values())
    rows = [
        row("pages read", *(c.pages for c in held)),
        row("documents that could not be read", *(len(c.failed) for c in held)),
        row("chunks", *(c.chunks for c in held)),
        row("of them table rows", *(c.rows for c in held)),
        row("of them procedures", *(c.steps for c in held)),
        row("violations of the contract", *(c.violations for c in held)),
        row("token recall", *(c.found / max(1, c.words) for c in held)),
        row("tokens left out by the rules", *(c.left_out / max(1, c.words + c.left_out) for c in held)),
        row("invented tokens", *(c.invented / max(1, c.said) for c in held)),
        row("pages a second", *(c.pages / max(1e-9, c.seconds) for c in held)),
    ]
    title = f"{num_pdfs} real documents, at most {max_pages} pages of each, four at a time"
    return {"title": title, "columns": ["", *counts], "rows": rows}
