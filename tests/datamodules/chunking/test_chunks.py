"""From flags to records: merging, the file and its schema, and the verbatim numbers."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from fulgurite.datamodules.chunking.chunks import (
    SCHEMA_FILE,
    Box,
    PlacedChunk,
    number_chunks,
    placed_from_json,
    placed_to_json,
    read_chunks,
    write_chunks,
)
from fulgurite.datamodules.chunking.contract import Flag, TaggedChunk
from fulgurite.datamodules.chunking.lines import Kind, kind_of
from fulgurite.datamodules.chunking.merging import MergePolicy, merge
from fulgurite.datamodules.chunking.verbatim import page_fidelity
from fulgurite.registry import UserError

LONG = "One line of the text.\nA second line.\nA third one."
ROW = "| Name | Size |\n|---|---|\n| bolt | 3 |"


def placed(flag: Flag, text: str, page: int = 1, heads: tuple[str, str, str] = ("T", "S", "U")) -> PlacedChunk:
    return PlacedChunk(TaggedChunk(flag, heads, text), (Box(page, 1.234, 2, 3, 4),), page, page)


def texts(*parts: PlacedChunk, policy: MergePolicy | None = None) -> list[str]:
    return [p.tagged.text for p in merge(parts, policy or MergePolicy())]


def test_true_is_merged_with_pages_and_places() -> None:
    merged = merge(
        [placed("False", LONG, 1), placed("True", "4. go on", 2), placed("True", "5. end", 3)], MergePolicy()
    )
    assert len(merged) == 1
    assert (merged[0].page_start, merged[0].page_end, len(merged[0].boxes)) == (1, 3, 3)
    assert merged[0].tagged.text == LONG + "\n4. go on\n5. end"


def test_a_sentence_that_was_cut_goes_on_in_its_line() -> None:
    assert texts(placed("False", LONG + " And then"), placed("True", "it ended.")) == [LONG + " And then it ended."]


@pytest.mark.parametrize("flag", ["True", "False", "Partial"])
def test_complete_rows_are_never_merged(flag: Flag) -> None:
    merged = merge([placed("False", ROW), placed(flag, ROW.replace("bolt", "nut"))], MergePolicy(partial="merge"))
    assert [p.tagged.text for p in merged] == [ROW, ROW.replace("bolt", "nut")]
    assert merged[1].tagged.continues != "True"


def test_a_cut_row_gets_its_cells() -> None:
    assert texts(placed("False", ROW), placed("True", "|  | mm |", 2)) == [ROW.replace("3", "3 mm")]


@pytest.mark.parametrize(("partial", "count"), [("keep", 3), ("same", 2), ("merge", 1)])
def test_partial_goes_by_the_policy(partial: str, count: int) -> None:
    parts = [placed("False", LONG), placed("Partial", LONG), placed("Partial", LONG, heads=("T", "other", "U"))]
    assert len(texts(*parts, policy=MergePolicy(partial=partial))) == count  # type: ignore[arg-type]


def test_a_short_chunk_joins_its_neighbour_with_its_heading() -> None:
    parts = [placed("False", "Short."), placed("False", LONG, heads=("T", "S2", "V"))]
    merged = merge(parts, MergePolicy())
    assert [p.tagged.text for p in merged] == ["S\nU\nShort.\nS2\nV\n" + LONG]
    assert merged[0].tagged.headings == ("T", "S2", "V")
    assert texts(placed("False", ROW), placed("False", "Short.")) == [ROW, "Short."]


def test_a_header_without_a_row_is_text() -> None:
    bare = "| type | name |\n|---|---|\n| ---- | ---- |"
    assert texts(placed("False", LONG), placed("False", bare), placed("False", ROW)) == [
        LONG + "\ntype name\n---- ----",
        ROW,
    ]


def test_steps_that_a_short_chunk_parts_are_one_chunk_again() -> None:
    parts = [placed("False", "1. Open the lid.\nIt is heavy.\nMind it."), placed("False", "Mind the edge."),
             placed("False", "2. Take it out.\nPut it down.\nThen wait.")]  # fmt: skip
    [only] = texts(*parts)
    assert only.splitlines()[0] == "1. Open the lid." and "Mind the edge." in only and "2. Take it out." in only


def test_the_file_fits_its_schema_and_comes_back(tmp_path: Path) -> None:
    chunks = number_chunks([placed("False", LONG), placed("False", ROW, 2)], "a.pdf", "ab" * 32, "layout")
    assert [c.kind for c in chunks] == ["text", "table_row"]
    assert (chunks[0].prev_id, chunks[0].next_id, chunks[1].prev_id) == (None, chunks[1].id, chunks[0].id)
    path = tmp_path / "chunks.jsonl"
    assert write_chunks(path, chunks) == 2
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    for line in path.read_text(encoding="utf-8").splitlines():
        jsonschema.validate(json.loads(line), schema)
    assert list(read_chunks(path)) == chunks
    assert placed_from_json(json.loads(json.dumps(placed_to_json(placed("True", LONG))))) == placed("True", LONG)


@pytest.mark.parametrize("change", ['"schema_version": 1', '"kind": "text", ', '{"id"'])
def test_another_file_is_refused_with_its_line(tmp_path: Path, change: str) -> None:
    path = tmp_path / "chunks.jsonl"
    write_chunks(path, number_chunks([placed("False", LONG)], "a.pdf", "ab" * 32, "layout"))
    new = {'"schema_version": 1': '"schema_version": 9'}.get(change, "")
    path.write_text(path.read_text(encoding="utf-8").replace(change, new), encoding="utf-8")
    with pytest.raises(UserError, match=r"chunks\.jsonl:1: is no chunk"):
        list(read_chunks(path))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ROW, "table_row"),
        ("To do it:\n1. a\n2. b", "steps"),
        ("Step 1: open\nthen\nStep 2: close", "steps"),
        ("• a\n• b", "list"),
        ("Q: why?\nA: so", "faq"),
        ("[Figure] a pump", "figure"),
        ("In 1997 it was\n1.5 times as much.", "text"),
    ],
)
def test_kinds(text: str, kind: Kind) -> None:
    assert kind_of(text) == kind


def test_recall_and_invented_tokens_are_counted() -> None:
    layer = {1: "One line of the text. A sec-\nond line. A third one. page 7", 2: "| Name | Size | bolt 3"}
    chunks = number_chunks([placed("False", LONG + " New!"), placed("False", ROW, 2)], "a.pdf", "ab" * 32, "layout")
    first, second = page_fidelity(chunks, layer, {1: "page 7"})
    assert (first.num_tokens, first.dropped, first.found, first.said, first.invented) == (12, 2, 12, 12, 1)
    assert (second.num_tokens, second.found, second.invented) == (4, 4, 0)
