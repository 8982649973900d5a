"""Scores against the truth: a perfect reader gets all of it, one that forgets loses what it forgot."""

from __future__ import annotations

import dataclasses

from fulgurite.datamodules.chunking.chunks import Chunk, PlacedChunk, number_chunks
from fulgurite.datamodules.chunking.contract import TaggedChunk
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.typeset.scores import Scores
from fulgurite.datamodules.chunking.typeset.truth import Truth


def perfect(truth: Truth) -> list[Chunk]:
    placed = [PlacedChunk(TaggedChunk("False", c.headings, c.text), (), c.page_start, c.page_end) for c in truth.chunks]
    return number_chunks(placed, "made.pdf", "0" * 64, "truth")


def test_the_truth_itself_scores_full() -> None:
    truth = typeset_document(11, language="de", genre="manual", num_pages=6).truth
    scores = Scores()
    scores.add(truth, perfect(truth), {s.page: s.continues for s in truth.page_starts}, 1)
    assert scores.all["rows"] and scores.all["procedures"] and scores.all["heading3"]
    assert {name: scores.share(name) for name in scores.all} == dict.fromkeys(scores.all, 1.0)


def test_what_is_forgotten_is_lost() -> None:
    truth = typeset_document(11, language="de", genre="manual", num_pages=6).truth
    bare = [dataclasses.replace(c, text=c.text.splitlines()[-1], headings=("x", "y", "z")) for c in perfect(truth)]
    scores = Scores()
    scores.add(truth, bare, {s.page: "Partial" for s in truth.page_starts}, 1)
    assert scores.share("rows") == scores.share("procedures") == scores.share("heading1") == 0.0
    assert scores.right["flags"] == scores.all["flags_Partial"]


def test_what_has_to_be_carried_is_counted_by_batches() -> None:
    truth = typeset_document(3_000_013, language="en", genre="price_list", num_pages=8).truth
    found = {pages: Scores() for pages in (1, 4, 8)}
    for pages, scores in found.items():
        scores.add(truth, perfect(truth), {}, pages)
    carried = {pages: scores.all["rows_next_batch"] for pages, scores in found.items()}
    assert carried[1] == found[1].all["rows_no_header"] > carried[4] > carried[8] == 0
