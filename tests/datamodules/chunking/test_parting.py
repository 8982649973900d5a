"""A chunk of several questions becomes one for each, with its own place, whichever reader wrote it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.datamodules.chunking.chunks import Box, PlacedChunk
from fulgurite.datamodules.chunking.context import ChunkContext
from fulgurite.datamodules.chunking.contract import TaggedChunk, write
from fulgurite.datamodules.chunking.merging import MergePolicy
from fulgurite.datamodules.chunking.pages import Document, PageBatch
from fulgurite.datamodules.chunking.parting import part_questions
from fulgurite.datamodules.chunking.rules import validate_chunks
from fulgurite.lightning_modules.chunking.reading import read_document

HEADINGS = ("Pump", "Help", "Questions")
LINES = {
    1: ["Please read these.", "Q: Is the pump on?", "A: Look at its green lamp.", "Q: May it run dry?"],
    2: ["A: Never, as its seal would melt.", "Q: Who cleans the filter?", "A: You do, once a week."],
}
WHOLE = "\n".join(line for lines in LINES.values() for line in lines)


@pytest.fixture
def faq(pdf: ModuleType, tmp_path: Path) -> Path:
    sheets = [pdf.Sheet().lines(72, 100, *lines) for lines in LINES.values()]
    return pdf.write_pdf(tmp_path / "faq.pdf", sheets)


def test_each_question_has_its_own_chunk_and_place(faq: Path) -> None:
    placed = PlacedChunk(
        TaggedChunk("True", HEADINGS, WHOLE), (Box(1, 72, 90, 400, 160), Box(2, 72, 90, 400, 150)), 1, 2
    )
    with Document(faq) as document:
        first, second, third = part_questions([placed], document)
    assert first.tagged.text.splitlines()[:2] == LINES[1][:2] and first.tagged.text.endswith("green lamp.")
    assert second.tagged.text == "\n".join([LINES[1][3], LINES[2][0]])
    assert third.tagged.text == "\n".join(LINES[2][1:])
    assert [p.tagged.continues for p in (first, second, third)] == ["True", "False", "False"]
    assert {p.tagged.headings for p in (first, second, third)} == {HEADINGS}
    assert [(p.page_start, p.page_end) for p in (first, second, third)] == [(1, 1), (1, 2), (2, 2)]
    assert [b.page for b in second.boxes] == [1, 2]
    assert third.boxes[0].y0 > second.boxes[1].y0, "below the answer that its page begins with"


@given(st.lists(st.sampled_from(["Q: a?", "A: b.", "Question 3: c?", "1. d", "words that go on"]), min_size=1))
def test_no_text_is_lost_and_no_chunk_has_two_questions(
    tmp_path_factory: pytest.TempPathFactory, pdf: ModuleType, lines: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "some.pdf"
    if not file.exists():
        pdf.write_pdf(file, [pdf.Sheet().text(72, 100, "words")])
    text = "\n".join(lines)
    with Document(file) as document:
        parts = part_questions([PlacedChunk(TaggedChunk("False", HEADINGS, text), (), 1, 1)], document)
    assert "\n".join(p.tagged.text for p in parts) == text
    assert "faq_merged" not in {v.rule for v in validate_chunks([p.tagged for p in parts])}


class OneChunkReader:
    """Takes all questions of a document for one, as a model may."""

    def settings(self) -> dict[str, str]:
        return {}

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        text = "\n".join(line for page in batch.pages for line in LINES[page.number])
        return write([TaggedChunk("True" if context.headings else "False", HEADINGS, text)])


@pytest.mark.parametrize("batch_pages", [1, 2])
def test_a_document_that_was_read_has_no_violation_left(faq: Path, tmp_path: Path, batch_pages: int) -> None:
    with Document(faq) as document:
        result = read_document(
            document, OneChunkReader(), "one", [1, 2], batch_pages, MergePolicy(), tmp_path / "journal"
        )
    assert result.answer_violations > 0 and result.violations == []
    assert [c.kind for c in result.chunks][1:] == ["faq", "faq"] and len(result.chunks) == 3
