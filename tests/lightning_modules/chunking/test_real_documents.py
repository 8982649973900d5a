"""The layout reader on real PDFs, which cannot lie in the repository: FULGURITE_PDFS names a folder of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fulgurite.datamodules.chunking.merging import MergePolicy
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.lightning_modules.chunking.readers.layout import LayoutReader
from fulgurite.lightning_modules.chunking.reading import read_document

FOLDER = os.environ.get("FULGURITE_PDFS", "")
FILES = sorted(Path(FOLDER).glob("*.pdf")) if FOLDER else []
MAX_PAGES = 40


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="FULGURITE_PDFS names no folder of PDFs")
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem[:24])
def test_a_real_document_keeps_the_contract(file: Path, tmp_path: Path) -> None:
    with Document(file) as document:
        numbers = list(range(1, min(document.num_pages, MAX_PAGES) + 1))
        result = read_document(document, LayoutReader(), "layout", numbers, 4, MergePolicy(), tmp_path / "journal")
        pages = {n: document.page(n) for n in numbers}
    assert result.violations == []
    for chunk in result.chunks:
        assert chunk.text.strip() and chunk.boxes
        assert (chunk.page_start, chunk.page_end) == (
            min(b.page for b in chunk.boxes),
            max(b.page for b in chunk.boxes),
        )
        assert all(-1 <= b.x0 < b.x1 <= pages[b.page].width + 1 for b in chunk.boxes)
    if words := sum(p.num_tokens for p in result.fidelity):
        assert sum(p.found for p in result.fidelity) >= 0.99 * words
        assert sum(p.invented for p in result.fidelity) <= 0.005 * sum(p.said for p in result.fidelity)
