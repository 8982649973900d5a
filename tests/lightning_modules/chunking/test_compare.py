"""Readers side by side: what is written, and that a reader which is given nothing of the batch before loses by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fulgurite.datamodules.chunking.pages import Document
from fulgurite.lightning_modules.chunking.compare import Forgetting, compare, read_with_flags
from fulgurite.lightning_modules.chunking.readers.rules import RulesReader

HEAD = "| Code | Part | Price |\n|---|---|---|\n"


def test_without_what_is_carried_later_rows_lose_their_header_and_steps_their_procedure(manual: Path) -> None:
    reader = RulesReader()
    carried, _ = read_with_flags(manual, reader, "rules", 1)
    alone, flags = read_with_flags(manual, Forgetting(reader), "rules", 1)
    row, step = "| K13 | washer size 13 | 13.50 |", "5. Turn bolt number 5"
    assert any(c.text == HEAD + row for c in carried)
    assert not any(c.text == HEAD + row for c in alone)
    assert any(step in c.text and "1. Turn bolt number 1" in c.text for c in carried)
    assert not any(step in c.text and "1. Turn bolt number 1" in c.text for c in alone)
    assert set(flags.values()) == {"False"}


def test_forgetting_is_told_apart_in_a_journal(manual: Path) -> None:
    reader = RulesReader()
    assert Forgetting(reader).settings() != reader.settings()
    with Document(manual) as document:
        [batch] = list(document.batches([2], 1))
        from fulgurite.datamodules.chunking.context import ChunkContext

        given = ChunkContext(headings=("A", "B", "C"))
        assert Forgetting(reader).read(batch, given) == reader.read(batch, ChunkContext()) != reader.read(batch, given)


@pytest.mark.slow
def test_the_command_writes_every_reader_s_shares(tmp_path: Path) -> None:
    pytest.importorskip("typst", reason="typst is not installed: pip install 'fulgurite[chunking]'")
    compare(tmp_path, num_documents=1, first_seed=1_500_000)
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["tables"][0]["columns"][2:] == [
        f"{name}, b = {b}" for name in ("rules", "layout", "layout, nothing carried") for b in (1, 4)
    ]
    assert {key.partition("/")[0] for key in told["metrics"]} == {"rules", "layout", "nothing_carried"}
    assert all(0 <= value <= 1 for value in told["metrics"].values())
