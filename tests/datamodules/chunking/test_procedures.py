"""Labels of real procedures, and when one counts as whole."""

from __future__ import annotations

from fulgurite.datamodules.chunking.chunks import Box, Chunk
from fulgurite.datamodules.chunking.questions.procedures import Procedure, labelled_procedures
from fulgurite.lightning_modules.chunking.evaluation.procedures import procedure_scores

PUMP = Procedure("pump.pdf", 2, 3, 3, "Close the valve", "open it again")


def _chunk(text: str, first: int, last: int) -> Chunk:
    return Chunk(
        id="1", text=text, headings=("Pump", "Care", "Filter"), continues="False", kind="steps", page_start=first,
        page_end=last, boxes=(Box(first, 0, 0, 9, 9),), prev_id=None, next_id=None, source="pump.pdf",
        source_sha256="0" * 64, reader="layout",
    )  # fmt: skip


def test_a_procedure_is_whole_in_one_chunk_only() -> None:
    whole = _chunk("1. Close the\nvalve.\n2. Clean it.\n3. Open it, then OPEN it again.", 2, 3)
    halves = [_chunk("1. Close the valve.\n2. Clean it.", 2, 2), _chunk("3. Open it, then open it again.", 3, 3)]
    assert PUMP.is_whole([whole])
    assert not PUMP.is_whole(halves)
    assert not PUMP.is_whole([_chunk(whole.text, 5, 6)]), "the same words on other pages"
    assert not PUMP.is_whole([_chunk("then open it again. 1. Close the valve.", 2, 3)]), "in the wrong order"
    more = " and so on" * 40
    assert not PUMP.is_whole([_chunk(whole.text + more, 2, 3)]), "among much else"
    assert PUMP.is_whole([_chunk(whole.text + more[:300], 2, 3)])


def test_the_labels_are_forty_and_more_of_six_documents() -> None:
    held = labelled_procedures()
    assert len(held) >= 40 and len({p.pdf for p in held}) >= 6
    assert len({(p.pdf, p.page_start, p.first, p.last) for p in held}) == len(held)
    for p in held:
        assert 1 <= p.page_start <= p.page_end and p.num_steps >= 2
        assert len(p.first.split()) + len(p.last.split()) <= 24, "a few words, not the document's text"
    assert sum(p.page_end > p.page_start for p in held) >= 5


def test_documents_without_labels_have_no_table() -> None:
    assert procedure_scores({"mine.pdf": []}) == ([], {})
    [table], metrics = procedure_scores({"watch_d.pdf": []})
    assert table["rows"][-1][0] == "all" and set(metrics.values()) == {0.0}


def test_a_chunk_a_page_is_counted_beside() -> None:
    own = next(p for p in labelled_procedures() if p.page_start == p.page_end)
    steps = [_chunk(own.first, own.page_start, own.page_start), _chunk(own.last, own.page_start, own.page_start)]
    [table], metrics = procedure_scores({own.pdf: steps})
    _, total, whole, by_page, *_ = table["rows"][-1]
    assert (whole, by_page) == (0, 1) and metrics["test/procedures/whole_a_chunk_a_page"] == 1 / total
