"""How well chunks agree with a typeset document's truth: rows with their header, whole procedures, headings, flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..chunks import Chunk
from ..lines import table_of
from ..verbatim import tokens
from .truth import Block, Truth

PROBE = 12  # tokens at a text's begin and end that have to be found


class Scores:
    """Counts of right and of all cases, by name; adds up over documents.

    Names: `rows` (a chunk has exactly this row under exactly its table's header), `rows_later` (those on a later page
    of their table), `rows_no_header` (those on a page where the header is not repeated), `rows_next_batch` (those of a
    batch that does not show their table's header, so that it has to be carried), `procedures` (all steps in one chunk),
    `procedures_over_pages`, `procedures_over_batches`, `heading1` to `heading3` (of the chunk that holds a truth
    chunk's first words), `flags` (of the first chunk of a batch), `flags_True`, `flags_False`, `flags_Partial`.
    """

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.all: Counter[str] = Counter()

    def count(self, name: str, right: bool) -> None:
        """One more case."""
        self.all[name] += 1
        self.right[name] += right

    def share(self, name: str) -> float | None:
        """Share of right cases; None where there is none."""
        return self.right[name] / self.all[name] if self.all[name] else None

    def add(self, truth: Truth, chunks: Sequence[Chunk], flags: Mapping[int, str], batch_pages: int) -> None:
        """Count a document.

        Args:
            truth: what is known of it.
            chunks: its merged chunks.
            flags: first page of a batch -> flag of the batch's first chunk, before merging.
            batch_pages: pages of a batch.
        """
        texts = [" ".join(tokens(c.text)) for c in chunks]
        self._rows(truth, chunks, batch_pages)
        self._procedures(truth, texts, batch_pages)
        self._headings(truth, chunks, texts)
        for start in truth.page_starts:
            if start.block >= 0 and start.page > 1 and start.page in flags:
                right = flags[start.page] == start.continues
                self.count("flags", right)
                self.count(f"flags_{start.continues}", right)

    def _rows(self, truth: Truth, chunks: Sequence[Chunk], batch_pages: int) -> None:
        found: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        for chunk in chunks:
            table = table_of(chunk.text)
            if table is not None and table[0]:
                found.update((_cells(table[0]), _cells(row)) for row in table[1])
        headers: dict[str, Block] = {}
        pages: dict[str, set[int]] = {}
        for block in truth.blocks:
            if block.role == "table_header":
                headers.setdefault(block.table, block)
                pages.setdefault(block.table, set()).update(p.box.page for p in block.parts)
        for block in truth.blocks:
            if block.role != "table_row":
                continue
            right = (_cells(headers[block.table].cells), _cells(block.cells)) in found
            page = block.parts[0].box.page
            self.count("rows", right)
            if truth.style["rules"] in ("grid", "lines"):
                self.count("rows_ruled", right)
            if page > min(pages[block.table]):
                self.count("rows_later", right)
                if page not in pages[block.table]:
                    self.count("rows_no_header", right)
                first = page - (page - 1) % batch_pages
                if not pages[block.table].intersection(range(first, page + 1)):
                    self.count("rows_next_batch", right)

    def _procedures(self, truth: Truth, texts: Sequence[str], batch_pages: int) -> None:
        steps: dict[str, list[Block]] = {}
        for block in truth.blocks:
            if block.role == "step":
                steps.setdefault(block.procedure, []).append(block)
        for blocks in steps.values():
            probes = [probe for block in blocks for probe in _probes(block.text)]
            right = any(all(probe in text for probe in probes) for text in texts)
            self.count("procedures", right)
            pages = {p.box.page for b in blocks for p in b.parts}
            if len(pages) > 1:
                self.count("procedures_over_pages", right)
            if len({(page - 1) // batch_pages for page in pages}) > 1:
                self.count("procedures_over_batches", right)

    def _headings(self, truth: Truth, chunks: Sequence[Chunk], texts: Sequence[str]) -> None:
        for chunk in truth.chunks:
            block = truth.blocks[chunk.blocks[0]]
            words = tokens(block.text)
            if len(words) < 3:
                continue
            holder = next((c for c, text in zip(chunks, texts, strict=True) if _probes(block.text)[0] in text), None)
            for level, wanted in enumerate(chunk.headings):
                right = holder is not None and tokens(holder.headings[level]) == tokens(wanted)
                self.count(f"heading{level + 1}", right)


def _cells(row: Sequence[str]) -> tuple[str, ...]:
    return tuple("".join(tokens(c)) for c in row)


def _probes(text: str) -> tuple[str, str]:
    words = tokens(text)
    return " ".join(words[:PROBE]), " ".join(words[-PROBE:])
