"""The reader by rules, on pages whose truth is known."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pypdf
import pytest

from fulgurite.datamodules.chunking.chunks import Chunk
from fulgurite.datamodules.chunking.context import ChunkContext
from fulgurite.datamodules.chunking.merging import MergePolicy
from fulgurite.datamodules.chunking.pages import Document, PageBatch
from fulgurite.lightning_modules.chunking.readers.protocol import PageReader
from fulgurite.lightning_modules.chunking.readers.rules import RulesReader
from fulgurite.lightning_modules.chunking.reading import DocumentResult, read_document


class Forgetful(RulesReader):
    """The same without the carried context."""

    def read_placed(self, batch: PageBatch, context: ChunkContext):  # type: ignore[no-untyped-def]
        return super().read_placed(batch, ChunkContext())


def read(path: Path, batch_pages: int, reader: PageReader | None = None) -> DocumentResult:
    with Document(path) as document:
        numbers = list(range(1, document.num_pages + 1))
        journal = path.parent / f"{batch_pages}.journal"
        journal.unlink(missing_ok=True)
        return read_document(document, reader or RulesReader(), "rules", numbers, batch_pages, MergePolicy(), journal)


def rows(chunks: list[Chunk]) -> list[Chunk]:
    return [c for c in chunks if c.kind == "table_row"]


@pytest.mark.parametrize("batch_pages", [1, 2, 4, 8])
def test_rows_steps_and_pages_are_right_at_any_batch(manual: Path, batch_pages: int) -> None:
    result = read(manual, batch_pages)
    assert result.violations == []
    head = "| Code | Part | Price |\n|---|---|---|\n"
    assert [c.text for c in rows(result.chunks)] == [
        f"{head}| K{k:02d} | washer size {k} | {k}.50 |" for k in range(1, 31)
    ]
    assert [c.page_start for c in rows(result.chunks)] == [3] * 12 + [4] * 12 + [5] * 6
    [steps] = [c for c in result.chunks if c.kind == "steps"]
    assert [f"{k}. Turn bolt number {k} until it is hand tight." in steps.text for k in range(1, 8)] == [True] * 7
    assert (steps.page_start, steps.page_end) == (2, 3)
    assert steps.headings == ("Pump P-100 Owner Manual", "1 Mounting", "1.1 Fixing the base")
    assert rows(result.chunks)[20].headings[1] == "2 Parts"


def test_without_context_rows_lose_their_header_and_steps_are_cut(manual: Path) -> None:
    result = read(manual, 1, Forgetful())
    right = [c for c in rows(result.chunks) if c.text.startswith("| Code | Part | Price |")]
    assert len(right) < 20
    assert len([c for c in result.chunks if c.kind == "steps"]) == 2


def test_columns_furniture_and_contents(manual: Path) -> None:
    result = read(manual, 4)
    text = "\n".join(c.text for c in result.chunks)
    assert "....." not in text
    assert "Owner Manual" not in text
    left, right = (
        text.index("the left column has its line number 13"),
        text.index("the right column has its line number 0"),
    )
    assert left < right
    assert sum(p.num_tokens for p in result.fidelity) == sum(p.found for p in result.fidelity) > 300
    assert sum(p.invented for p in result.fidelity) == 0


def test_a_table_with_lying_rules_alone_and_one_without_any(pdf: ModuleType, tmp_path: Path) -> None:
    sheet = pdf.Sheet().lines(72, 60, *["Words that fill the page above the tables, line by line."] * 5)
    for y in (150, 172, 236):
        sheet.commands.append(f"72 {842 - y} m 500 {842 - y} l S")
    for k, row in enumerate(
        [
            ("Model", "Data", "Score"),
            ("first one", "alpha", "0.71"),
            ("second", "beta", "0.82"),
            ("third", "gamma", "0.93"),
        ]
    ):
        for x, cell in zip((80, 240, 400), row, strict=True):
            sheet.text(x, 155 + 20 * k, cell, 10)
    statement = [
        ("", "2021", "2020"),
        ("Cash", "11,258", "12,277"),
        ("Receivables", "1,803", "1,550"),
        ("Inventories", "14,215", "12,242"),
        ("Total of what the company has, and of what", "", ""),
        ("is owed to it", "27,276", "26,069"),
    ]
    for k, row in enumerate(statement):
        for x, cell in zip((80, 300, 400), row, strict=True):
            sheet.text(x, 400 + 14 * k, cell, 10)
    result = read(pdf.write_pdf(tmp_path / "tables.pdf", [sheet]), 1)
    assert [c.text for c in rows(result.chunks)] == [
        *(
            f"| Model | Data | Score |\n|---|---|---|\n| {a} | {b} | {c} |"
            for a, b, c in (("first one", "alpha", "0.71"), ("second", "beta", "0.82"), ("third", "gamma", "0.93"))
        ),
        *(f"|  | 2021 | 2020 |\n|---|---|---|\n| {a} | {b} | {c} |" for a, b, c in statement[1:4]),
        "|  | 2021 | 2020 |\n|---|---|---|\n| Total of what the company has, and of what is owed to it | "
        "27,276 | 26,069 |",
    ]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_page_set_sideways_is_read_the_same(manual: Path, tmp_path: Path, turn: int) -> None:
    writer = pypdf.PdfWriter(clone_from=manual)
    for page in writer.pages:
        page.rotate(turn)
    turned = tmp_path / f"turned{turn}.pdf"
    writer.write(turned)
    straight, sideways = read(manual, 4).chunks, read(turned, 4).chunks
    assert [c.text for c in rows(sideways)] == [c.text for c in rows(straight)]
    [box] = next(c.boxes for c in sideways if "K05" in c.text)
    [flat] = next(c.boxes for c in straight if "K05" in c.text)
    sides, flat_sides = (box.x1 - box.x0, box.y1 - box.y0), (flat.x1 - flat.x0, flat.y1 - flat.y0)
    assert sides == pytest.approx(flat_sides if turn == 180 else flat_sides[::-1], abs=0.1)


def test_boxes_lie_over_the_words(manual: Path) -> None:
    result = read(manual, 4)
    [row] = [c for c in result.chunks if "K05" in c.text]
    [box] = row.boxes
    assert box.page == 3
    assert box.y0 == pytest.approx(300 + 20 * 5, abs=1.5) and box.y1 == pytest.approx(300 + 20 * 6, abs=1.5)
    assert box.x0 == pytest.approx(72, abs=1.5) and box.x1 == pytest.approx(72 + 340, abs=1.5)
