"""Typeset documents: the truth is what the PDF shows, and a set of seeds holds every role and hard case."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fulgurite.datamodules.chunking.chunks import Box
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.typeset.statistics import HARD_CASES, Statistics, count
from fulgurite.datamodules.chunking.typeset.style import Style
from fulgurite.datamodules.chunking.typeset.truth import OUTSIDE_CHUNKS, ROLES, TypesetDocument
from fulgurite.registry import UserError

pytest.importorskip("typst")
pdfium = pytest.importorskip("pypdfium2")

HYPHENS = "-\u2010\u00ad\u0002\ufffe"  # as pdfium gives one at a line's end


@pytest.fixture(scope="module")
def documents() -> list[TypesetDocument]:
    return [typeset_document(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def few() -> list[TypesetDocument]:
    return [typeset_document(seed) for seed in (3, 7, 8)]


def bare(text: str, hyphens: bool) -> str:
    return "".join(c for c in text if not c.isspace() and (hyphens or c not in HYPHENS))


def places(document: TypesetDocument) -> Iterator[tuple[str, str, str, bool]]:
    """Of every cell, and of every part that is no table's: role, text, what pdfium finds inside its box, exactness."""
    opened = pdfium.PdfDocument(document.pdf)
    for page in range(1, len(opened) + 1):
        text = opened[page - 1].get_textpage()
        height = opened[page - 1].get_height()

        def inside(box: Box, text: object = text, height: float = height) -> str:
            return text.get_text_bounded(box.x0, height - box.y1, box.x1, height - box.y0)  # type: ignore[attr-defined]

        for block, part in document.truth.on_page(page):
            pieces = [(cell.text, cell.box) for cell in part.cells if cell.box] or [(part.text, part.box)]
            for said, box in pieces:
                yield block.role, said, inside(box), part.hyphens == 0
            if part.cells:  # a line of a table: pdfium may order its cells otherwise
                yield block.role, "".join(sorted(part.text)), "".join(sorted(inside(part.box))), part.hyphens == 0


def assert_exact(document: TypesetDocument) -> int:
    checked = list(places(document))
    for role, said, found, exact in checked:
        assert bare(found, exact) == bare(said, exact), (document.truth.seed, role)
    return len(checked)


def test_text_in_every_box_is_the_blocks_text(few: list[TypesetDocument]) -> None:
    assert sum(assert_exact(document) for document in few) > 300


@pytest.mark.slow
def test_text_in_every_box_is_the_blocks_text_on_40_seeds(documents: list[TypesetDocument]) -> None:
    assert sum(assert_exact(document) for document in documents) > 5000


@pytest.mark.slow
def test_40_seeds_hold_every_role_and_hard_case(documents: list[TypesetDocument]) -> None:
    found: Statistics = count(document.truth for document in documents)
    assert [role for role in ROLES if not found.roles[role]] == []
    assert [case for case in HARD_CASES if not found.cases[case]] == []
    assert set(found.flags) == {"True", "False", "Partial"}
    assert set(found.chunks) == {"text", "table_row", "steps", "list", "faq", "figure"}
    assert set(found.languages) == {"en", "de", "fr", "es"} and len(found.genres) == 5


@pytest.mark.slow
def test_every_character_of_the_pdf_belongs_to_a_block(documents: list[TypesetDocument]) -> None:
    for document in documents[:12]:
        opened = pdfium.PdfDocument(document.pdf)
        for page in range(1, len(opened) + 1):
            printed = sorted(bare(opened[page - 1].get_textpage().get_text_range(), hyphens=False))
            known = "".join(part.text for _, part in document.truth.on_page(page))
            assert sorted(bare(known, hyphens=False)) == printed


def test_same_seed_same_bytes(few: list[TypesetDocument]) -> None:
    again = typeset_document(7)
    assert again == few[1]
    assert typeset_document(9).pdf != again.pdf


def test_parts_of_a_block_make_its_text(few: list[TypesetDocument]) -> None:
    for document in few:
        for block in document.truth.blocks:
            assert bare("".join(part.text for part in block.parts), True) == bare(block.text, True) or block.cells
            for column, cell in enumerate(block.cells if block.role == "table_row" else ()):
                pieces = " ".join(part.cells[column].text for part in block.parts).strip()
                assert bare(pieces, True) == bare(cell, True)


def test_reading_order_counts_every_part_once(few: list[TypesetDocument]) -> None:
    for document in few:
        truth = document.truth
        order = [part.order for page in range(1, truth.num_pages + 1) for _, part in truth.on_page(page)]
        assert order == list(range(len(order)))
        assert [block.id for block in truth.blocks] == list(range(len(truth.blocks)))


def test_chunks_follow_the_papers_rules(few: list[TypesetDocument]) -> None:
    for document in few:
        truth = document.truth
        owned = {k: chunk.id for chunk in truth.chunks for k in chunk.blocks}
        for block in truth.blocks:
            assert block.chunk == owned.get(block.id, "")
            assert (block.chunk == "") == (block.role in OUTSIDE_CHUNKS)
        for chunk in truth.chunks:
            blocks = [truth.blocks[k] for k in chunk.blocks]
            rows = [block for block in blocks if block.role == "table_row"]
            assert len(rows) == (chunk.kind == "table_row")
            if rows:
                header = next(b for b in truth.blocks if b.role == "table_header" and b.table == rows[0].table)
                assert all(name in chunk.text for name in header.cells)
            questions = sum(block.role == "question" for block in blocks)
            assert questions == (chunk.kind == "faq") == sum(block.role == "answer" for block in blocks)
        for procedure in {block.procedure for block in truth.blocks} - {""}:
            steps = [block for block in truth.blocks if block.procedure == procedure and block.step]
            assert len({block.chunk for block in steps}) == 1
            assert [block.step for block in steps] == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_page_starts_say_true_where_a_chunk_goes_on(documents: list[TypesetDocument]) -> None:
    for document in documents:
        truth = document.truth
        chunks = {chunk.id: chunk for chunk in truth.chunks}
        assert [start.page for start in truth.page_starts] == list(range(1, truth.num_pages + 1))
        for start in truth.page_starts:
            if start.continues == "True":
                assert chunks[start.chunk].page_start < start.page <= chunks[start.chunk].page_end
            elif start.chunk:
                assert chunks[start.chunk].page_start == start.page


@pytest.mark.parametrize("num_pages", [1, 2, 5, 30])
def test_number_of_pages_language_and_genre_can_be_chosen(num_pages: int) -> None:
    document = typeset_document(5, language="fr", genre="manual", num_pages=num_pages)
    assert len(pdfium.PdfDocument(document.pdf)) == document.truth.num_pages == num_pages
    assert (document.truth.language, document.truth.genre) == ("fr", "manual")


def test_a_style_can_be_given(few: list[TypesetDocument]) -> None:
    given = few[0].truth.style
    style = Style(**{**given, "heading_scale": tuple(given["heading_scale"]), "width": 500.0, "columns": 1})
    document = typeset_document(1, style=style, num_pages=2)
    assert document.truth.page_sizes[0][0] == pytest.approx(500, abs=0.01)
    assert document.truth.style["font"] == given["font"]


def test_a_single_page_has_text_whatever_the_style(few: list[TypesetDocument]) -> None:
    given = few[0].truth.style
    style = Style(**{**given, "heading_scale": tuple(given["heading_scale"]), "title_page": True, "contents": True})
    roles = {block.role for block in typeset_document(4, style=style, num_pages=1).truth.blocks}
    assert {"title", "body"} < roles and "contents_entry" not in roles


def test_written_document_is_read_back(few: list[TypesetDocument], tmp_path) -> None:
    few[0].write(tmp_path / "a.b")
    assert TypesetDocument.read(tmp_path / "a.b") == few[0]


def test_truth_of_another_schema_is_refused(few: list[TypesetDocument], tmp_path) -> None:
    few[0].write(tmp_path / "doc")
    path = tmp_path / "doc.truth.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        TypesetDocument.read(tmp_path / "doc")
    path.write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        TypesetDocument.read(tmp_path / "doc")


def test_wrong_wishes_are_refused() -> None:
    with pytest.raises(UserError, match="no lexicon for the language 'xx'"):
        typeset_document(0, language="xx")
    with pytest.raises(UserError, match="genres: manual"):
        typeset_document(0, genre="poem")
    with pytest.raises(UserError, match="0 pages"):
        typeset_document(0, num_pages=0)
