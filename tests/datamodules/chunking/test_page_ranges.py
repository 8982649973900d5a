"""A chunk whose page range is wrong is found by its first and last words."""

from __future__ import annotations

import dataclasses

from fulgurite.datamodules.chunking.chunks import Box, Chunk
from fulgurite.datamodules.chunking.page_ranges import check_ranges

LAYERS = {
    1: "Pump manual. Close the valve before you be-\ngin, and wait.",
    2: "Then open it again. Name Size bolt 3",
    3: "A last word stands here",
    4: "",
}
CHUNK = Chunk(
    id="a", text="Close the valve before you begin, and wait. Then open it again.", headings=("Pump", "Care", "Valve"),
    continues="False", kind="text", page_start=1, page_end=2, boxes=(), prev_id=None, next_id=None, source="p.pdf",
    source_sha256="0" * 64, reader="layout",
)  # fmt: skip


def wrong(**changes: object) -> list[str]:
    return list(check_ranges([dataclasses.replace(CHUNK, **changes)], LAYERS).wrong)


def test_a_range_is_borne_out_by_the_words_at_its_ends() -> None:
    assert wrong() == []
    assert wrong(page_end=1) == ["a"]
    assert wrong(page_start=2) == ["a"]
    assert wrong(page_start=2, page_end=3) == ["a"]
    assert wrong(page_end=3) == ["a"], "a range too long is as wrong as one too short"


def test_a_repeated_header_and_a_heading_taken_in_are_no_first_words() -> None:
    row = "| Code | Part |\n|---|---|\n| bolt | 3 |"
    assert wrong(text=row, kind="table_row", page_start=2) == []
    assert wrong(text="Care\nThen open it again.", page_start=2) == []
    assert wrong(text="Elsewhere\nThen open it again.", page_start=2) == ["a"]


def test_a_footnote_may_end_a_chunk_that_goes_on_on_the_next_page() -> None:
    boxes = tuple(Box(page, 72, 90, 400, 160) for page in (1, 2, 1))
    text = "Close the valve before you begin. Then open it again. Pump manual."
    assert wrong(text=text, boxes=boxes) == []
    assert wrong(text=text, boxes=boxes, page_end=1) == ["a"]
    assert wrong(text=text, boxes=boxes[:2]) == ["a"]


def test_a_row_that_is_cut_may_end_in_any_cell() -> None:
    row = "| Close the valve again | before |"
    assert wrong(text=row, kind="table_row") == []
    assert wrong(text=row, kind="table_row", page_end=3) == ["a"]


def test_what_has_no_text_layer_is_not_counted_and_a_move_tells_what_is_seen() -> None:
    assert check_ranges([dataclasses.replace(CHUNK, page_start=4, page_end=4)], LAYERS).checked == 0
    held = check_ranges([CHUNK, dataclasses.replace(CHUNK, text="it", page_start=1, page_end=1)], LAYERS)
    assert (held.checked, held.right, held.moved, held.moved_right) == (2, 1, 2, 1)
