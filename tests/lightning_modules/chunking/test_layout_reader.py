"""The default reader with the released weights: rows, steps and pages on pages whose truth is known; no weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from fulgurite.datamodules.chunking.chunks import Chunk
from fulgurite.datamodules.chunking.lines import bare_step
from fulgurite.datamodules.chunking.merging import MergePolicy
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.typeset.scores import Scores
from fulgurite.lightning_modules.chunking.compare import read_with_flags
from fulgurite.lightning_modules.chunking.readers.layout import LayoutReader
from fulgurite.lightning_modules.chunking.readers.protocol import PlacingReader
from fulgurite.lightning_modules.chunking.readers.rules import RulesReader
from fulgurite.lightning_modules.chunking.reading import read_document
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def reader() -> LayoutReader:
    return LayoutReader()


def read(path: Path, reader: PlacingReader, batch_pages: int) -> list[Chunk]:
    with Document(path) as document:
        numbers = list(range(1, document.num_pages + 1))
        journal = path.parent / f"{batch_pages}.journal"
        result = read_document(document, reader, "layout", numbers, batch_pages, MergePolicy(), journal)
    assert result.violations == []
    return result.chunks


@pytest.mark.parametrize("batch_pages", [1, 4])
def test_rows_have_the_header_and_steps_stay_together(manual: Path, reader: LayoutReader, batch_pages: int) -> None:
    chunks = read(manual, reader, batch_pages)
    head = "| Code | Part | Price |\n|---|---|---|\n"
    rows = [c.text for c in chunks if c.kind == "table_row"]
    assert rows == [f"{head}| K{k:02d} | washer size {k} | {k}.50 |" for k in range(1, 31)]
    assert any(all(f"{k}. Turn bolt number {k} until it is hand tight." in c.text for k in range(1, 8)) for c in chunks)


def test_rows_and_third_headings_are_no_worse_than_by_the_rules(tmp_path: Path, reader: LayoutReader) -> None:
    scores = {"layout": Scores(), "rules": Scores()}
    for seed in (3_000_001, 3_000_002, 3_000_003):
        made = typeset_document(seed, language="en")
        file = tmp_path / f"{seed}.pdf"
        file.write_bytes(made.pdf)
        for name, one in (("layout", reader), ("rules", RulesReader())):
            scores[name].add(made.truth, *read_with_flags(file, one, name, 4), 4)
    for measure in ("rows", "heading3"):  # of second headings it has five fewer here: 103 against 108 of 115
        assert scores["layout"].right[measure] >= scores["rules"].right[measure]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (3_000_066, "a footnote between two pages of a table"),
        (3_000_010, "a row cut at the end of a text column"),
        (3_000_074, "a heading and a caption between two tables that the rules take for one"),
        (3_000_063, "tables without rules in two text columns"),
    ],
)
def test_every_row_has_the_header_and_its_cells(tmp_path: Path, reader: LayoutReader, seed: int, what: str) -> None:
    made = typeset_document(seed)
    file = tmp_path / f"{seed}.pdf"
    file.write_bytes(made.pdf)
    scores = Scores()
    scores.add(made.truth, *read_with_flags(file, reader, "layout", 4), 4)
    assert scores.right["rows"] == scores.all["rows"] > 0, what


def test_a_heading_that_ends_in_a_letter_of_roman_numerals_is_no_entry_of_the_contents(
    tmp_path: Path, reader: LayoutReader
) -> None:
    made = typeset_document(3_000_004, language="en")
    file = tmp_path / "manual.pdf"
    file.write_bytes(made.pdf)
    chunks, _ = read_with_flags(file, reader, "layout", 4)
    assert "1. Disposal" in {c.headings[1] for c in chunks}


def test_missing_weights_are_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fulgurite run chunking/chunker"):
        LayoutReader(weights=tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"schema_version": 1, "network": {"width": 8}}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(UserError, match="no trained chunker of this release"):
        LayoutReader(weights=tmp_path)


def test_steps_with_bare_numbers_stay_together(pdf: ModuleType, tmp_path: Path, reader: LayoutReader) -> None:
    sheet = pdf.Sheet().text(72, 60, "Watch Manual", 24, bold=True).text(72, 110, "Pairing the watch", 16, bold=True)
    sheet.lines(72, 145, "The watch and the phone have to be near each other for all of this. Keep them charged.")
    steps = ("Open the app on the phone and touch Devices.", "Touch the name of the watch in the list.",
             "Wait for the message, and touch Done to end it.")  # fmt: skip
    for number, words in enumerate(steps, 1):
        sheet.text(72, 150 + 30 * number, str(number)).text(90, 150 + 30 * number, words)
    sheet.lines(90, 258, "A code may be shown before.")
    sheet.text(72, 290, "4").text(90, 290, "Put the watch on your wrist.")
    sheet.lines(72, 330, "3 Devices can be paired at a time, and more are told by a message that they have to wait.")
    chunks = read(pdf.write_pdf(tmp_path / "watch.pdf", [sheet]), reader, 4)
    [held] = [c for c in chunks if "touch Devices" in c.text]
    assert "1 Open the app" in held.text and "4 Put the watch on" in held.text
    assert bare_step("3 Devices can be paired") == 3
    assert bare_step("3.5 V at most") is None and bare_step("3 of them") is None


def test_solved_questions_set_closely_are_a_chunk_each(pdf: ModuleType, tmp_path: Path, reader: LayoutReader) -> None:
    sheet = pdf.Sheet().text(72, 60, "Exercises with Solutions", 24, bold=True)
    sheet.lines(72, 110, "Each of these is solved, and the answer stands below its solution, as the examples show.")
    for number, (first, second) in enumerate(((3, 4), (20, 22), (31, 7))):
        y = 140 + 52 * number
        sheet.lines(72, y, f"Question: What is the sum of {first} and {second}, if both are counted only once?")
        sheet.lines(72, y + 14, f"Solution: The sum of these numbers is {first + second}, which is found by adding.")
        sheet.text(72, y + 28, f"Answer: The answer is {first + second}", bold=True)
    chunks = read(pdf.write_pdf(tmp_path / "exercises.pdf", [sheet]), reader, 4)
    solved = [c.text for c in chunks if "Question:" in c.text]
    assert [text.count("Question:") for text in solved] == [1, 1, 1]
    for text, total in zip(solved, (7, 42, 38), strict=True):
        assert text.startswith("Question:") and text.endswith(f"Answer: The answer is {total}")
    assert not any("Answer" in heading for c in chunks for heading in c.headings)


def test_a_procedure_s_chunk_begins_with_what_leads_in(pdf: ModuleType, tmp_path: Path, reader: LayoutReader) -> None:
    sheet = pdf.Sheet().text(72, 60, "Pump Manual", 24, bold=True).text(72, 110, "Changing the filter", 16, bold=True)
    keeps = ("The filter keeps sand and leaves out of the pump, and has to be changed once in a year at",
             "least, in dusty places twice.")  # fmt: skip
    full = ("A filter that is full makes the pump loud and hot, and the water turns brown after some",
            "days, which does no harm to the pump.")  # fmt: skip
    sheet.lines(72, 140, *keeps).lines(72, 176, *full)
    sheet.lines(72, 212, "Filters are sold in boxes of ten, which last for some years.")
    sheet.lines(72, 240, "To change the filter, do this:")
    for number, words in enumerate(("Close the valve.", "Take out the old filter.", "Put in the new one."), 1):
        sheet.text(72, 250 + 18 * number, f"{number}. {words}")
    chunks = read(pdf.write_pdf(tmp_path / "pump.pdf", [sheet]), reader, 4)
    [held] = [c.text for c in chunks if "Close the valve" in c.text]
    assert "3. Put in the new one." in held and "do this:" in held
    assert "keeps sand" not in held and any("keeps sand" in c.text for c in chunks)
