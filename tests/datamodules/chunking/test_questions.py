"""Questions about PDFs: the file, the split by digest, the classes, and the string tests that score a text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.questions.classes import classify
from fulgurite.datamodules.chunking.questions.question import (
    Question,
    TableCell,
    read_questions,
    split_documents,
)
from fulgurite.datamodules.chunking.questions.scoring import holds_answer, holds_cell, holds_row
from fulgurite.datamodules.sources.cache import source_folder
from fulgurite.datamodules.sources.download import is_cached
from fulgurite.registry import UserError

CELL = TableCell("K 07", "7.50", ("Code", "Part name", "Price"), 30, "first page")


def question(**given: Any) -> Question:
    held: dict[str, Any] = {
        "id": "q", "pdf": "a.pdf", "question": "What is the price?", "answer": "7.50", "mode": "text",
        "keys": ("7.50",), "pages": (1,), "category": "text", "human": True, "cell": None,
    }  # fmt: skip
    return Question(**{**held, **given})


def test_a_file_gives_its_questions_and_names_a_bad_line(tmp_path: Path) -> None:
    table = {"row_key": "K07", "cell": "7.50", "header_row": ["Code", "Price"], "header_on_evidence_page": False,
             "page_in_table": 2, "row_window": 40}  # fmt: skip
    lines = [
        {"id": "a", "pdf": "a.pdf", "question": "Who?", "answer": "Ada"},
        {"id": "b", "pdf": "a.pdf", "question": "Who?", "answer": "Ada", "answer_keys": ["Ada"], "evidence_pages": [3]},
        {
            "id": "c",
            "pdf": "a.pdf",
            "question": "?",
            "answer": "7.50",
            "answer_mode": "text_table_cell",
            "table": table,
        },
    ]
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    first, second, third = read_questions(file)
    assert (first.mode, first.searchable) == ("derived", False)
    assert (second.mode, second.searchable, second.pages) == ("text", True, (3,))
    assert third.cell is not None and third.cell.page_kind == "later page, no header" and third.cell.row_window == 40
    for bad, said in (
        ('{"id": "d"}', "2: has no field 'pdf'"),
        ("[1]", "2: is no question"),
        (json.dumps(lines[0]), "2: the id 'a' stands a second time"),
        (json.dumps({**lines[1], "answer_mode": "txt"}), "answer_mode 'txt' is none of"),
    ):
        file.write_text(json.dumps(lines[0]) + "\n" + bad, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            read_questions(file)
    with pytest.raises(UserError, match="can't be read"):
        read_questions(tmp_path / "none.jsonl")


def test_the_split_goes_by_bytes_and_takes_what_was_used_into_development(tmp_path: Path) -> None:
    files = []
    for k in range(9):
        files.append(tmp_path / f"{k}.pdf")
        files[-1].write_bytes(f"document {k}".encode())
    order = sorted(files, key=lambda f: hashlib.sha256(f.read_bytes()).hexdigest())
    development, held_out = split_documents(files, 4)
    assert set(development) == set(order[:4]) and set(held_out) == set(order[4:])
    used = order[-1]
    forced, rest = split_documents(files[::-1], 4, [used.stem])
    assert set(forced) == {used, *order[:3]} and not set(forced) & set(rest)
    with pytest.raises(UserError, match="no document 'x'"):
        split_documents(files, 4, ["x"])
    with pytest.raises(UserError, match="5 documents are used"):
        split_documents(files, 4, [f.name for f in files[:5]])


def test_answers_are_found_through_case_breaks_and_thousands() -> None:
    total = question(keys=("18078",))
    assert holds_answer(total, ["Total equity", "is 18,\u00ad078"])
    assert not holds_answer(total, ["18", "078"])  # no key runs over two chunks
    both = question(keys=("Pump hous-ing", "seal."))
    assert holds_answer(both, ["PUMP HOUSING", "a seal"]) and not holds_answer(both, ["PUMP HOUSING"])
    assert not holds_answer(question(keys=(), mode="derived"), ["anything"])


def test_a_cell_needs_its_row_and_strictly_its_header_before_it() -> None:
    row = "| K07 | washer | 7.50 |"
    header = "| Code | Part name | Price |\n|---|---|---|\n"
    assert holds_row(CELL, row) and not holds_cell(CELL, row)
    assert holds_cell(CELL, header + row) and not holds_cell(CELL, row + header)
    assert not holds_row(CELL, "| K07 | a washer of the largest size there is | 7.50 |")  # beyond the row's window
    assert not holds_cell(CELL, "| Price | Part name | Code |\n" + row)
    assert not holds_cell(CELL, "Code, then a long sentence about something else, Part name, Price " + row)
    assert holds_answer(question(cell=CELL, mode="text_table_cell"), ["x", row])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"question": "How do I mount the pump?"}, "procedural"),
        ({"question": "Which bolt?", "category": "procedure_page_break"}, "procedural"),
        ({"question": "How many figures are in the report?"}, "structural"),
        ({"question": "What does Table 3 say?", "category": "table"}, "structural"),
        ({"category": "table", "pages": (4, 5)}, "cross-table"),
        ({"category": "table", "mode": "derived"}, "cross-table"),
        ({"cell": TableCell("a", "b", ("c",), 9, "later page, no header")}, "cross-table"),
        ({"cell": CELL}, "factual"),
        ({"pages": (4, 9)}, "multi-section"),
        ({"question": "How many pumps are there?"}, "factual"),
    ],
)
def test_classes(given: dict[str, Any], expected: str) -> None:
    assert classify(question(**given)) == expected


def test_the_questions_about_the_papers_are_found_by_name(tmp_path: Path) -> None:
    found = read_questions(Path("papers"))
    assert len({q.pdf for q in found}) == 3 and len(found) >= 30
    assert all(q.searchable and q.pages and not q.human for q in found)
    assert sum(q.cell is not None for q in found) >= 10
    with pytest.raises(UserError, match="can't be read"):
        read_questions(Path("pappers"))
    with pytest.raises(UserError, match="can't be read"):
        read_questions(tmp_path / "papers")


@pytest.mark.skipif(not is_cached("papers-pdf"), reason="needs the papers: fulgurite fetch papers-pdf")
def test_the_answers_stand_on_their_pages() -> None:
    for asked in read_questions(Path("papers")):
        with Document(source_folder("papers-pdf") / asked.pdf) as document:
            text = document.page(asked.pages[0]).layer.text
        assert holds_answer(asked, [text]), asked.id
