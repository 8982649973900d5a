"""What the trained chunker is shown and told: items, labels, the true context, batches, the kept files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fulgurite.datamodules.chunking.context import ChunkContext, OpenProcedure
from fulgurite.datamodules.chunking.labels import FLAGS, IGNORED, label_items, true_context
from fulgurite.datamodules.chunking.layout.features import OWN, RELATED, related_features
from fulgurite.datamodules.chunking.layout.pictures import HEIGHT, WIDTH
from fulgurite.datamodules.chunking.layout.seen_page import SeenPage
from fulgurite.datamodules.chunking.layout.state import NUM_STATE, corrupted, state_features, state_texts
from fulgurite.datamodules.chunking.layout.style import document_style
from fulgurite.datamodules.chunking.module import EncodedDocument, collate
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.synthetic import label_documents, load_document
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.typeset.truth import ROLES, Truth

SEED = 7


@pytest.fixture(scope="module")
def typeset(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SeenPage], Truth]:
    made = typeset_document(SEED, language="en", genre="manual", num_pages=5)
    file = tmp_path_factory.mktemp("typeset") / "made.pdf"
    file.write_bytes(made.pdf)
    with Document(file) as document:
        style = document_style(document)
        return [SeenPage.of(document.page(n), style) for n in range(1, 6)], made.truth


def test_nearly_every_item_has_a_role_and_every_role_of_the_truth_an_item(
    typeset: tuple[list[SeenPage], Truth],
) -> None:
    pages, truth = typeset
    labels = label_items([i for page in pages for i in page.items], truth)
    assert (labels.role == IGNORED).mean() < 0.02
    wanted = {b.role for b in truth.blocks}
    assert {ROLES[r] for r in labels.role if r != IGNORED} >= wanted - {"page_number", "header", "footer", "figure"}


def test_flags_of_page_starts_are_the_truth_s(typeset: tuple[list[SeenPage], Truth]) -> None:
    pages, truth = typeset
    items = [i for page in pages for i in page.items]
    labels = label_items(items, truth)
    told = {items[k].page: FLAGS[labels.flag[k]] for k in np.flatnonzero(labels.flag != IGNORED)}
    wanted = {s.page: s.continues for s in truth.page_starts if s.block >= 0}
    assert told.keys() <= wanted.keys() and len(told) >= len(wanted) - 1
    assert all(wanted[page] == flag for page, flag in told.items())


def test_a_chunk_begins_once(typeset: tuple[list[SeenPage], Truth]) -> None:
    pages, truth = typeset
    labels = label_items([i for page in pages for i in page.items], truth)
    rows = sum(b.role == "table_row" for b in truth.blocks)
    others = sum(c.kind != "table_row" for c in truth.chunks)
    headers = int(((labels.role == ROLES.index("table_header")) & (labels.begins == 1)).sum())
    assert int((labels.begins == 1).sum()) - headers == pytest.approx(rows + others, abs=0.03 * (rows + others) + 1)


def test_the_true_context_knows_what_is_open(typeset: tuple[list[SeenPage], Truth]) -> None:
    _, truth = typeset
    assert true_context(truth, 1) == ChunkContext()
    for start in truth.page_starts[1:]:
        context = true_context(truth, start.page)
        assert context.headings[0] == truth.blocks[start.block].path[0]
        block = truth.blocks[start.block]
        if block.role == "step" and start.continues == "True" and len(block.parts) == 1:
            assert context.open_procedure is not None and context.open_procedure.last_step == block.step - 1
    assert len(state_texts(true_context(truth, 3))) == NUM_STATE == len(state_features(ChunkContext()))


def test_items_know_what_of_the_context_they_go_on_with(typeset: tuple[list[SeenPage], Truth]) -> None:
    pages, _ = typeset
    page = next(p for p in pages if any(i.text.startswith(("4.", "Step 4", "4)", "(4)")) for i in p.items))
    at = next(k for k, i in enumerate(page.items) if i.text.startswith(("4.", "Step 4", "4)", "(4)")))
    items, own_NF = page.items[at:], page.own_NF[at:]
    open_at_three = ChunkContext(("T", "S", "S"), (), (), OpenProcedure("S", 3))
    found = related_features(items, own_NF, open_at_three)
    assert found[0, RELATED["next_step"]] == 1 and own_NF[0, OWN["step"]] == 1
    assert related_features(items, own_NF, ChunkContext())[0, RELATED["next_step"]] == 0


def test_a_corrupted_context_has_the_other_s_parts() -> None:
    right = ChunkContext(("T", "S", "S"), ("a",), ("x",), OpenProcedure("S", 3))
    other = ChunkContext(("U", "V", "V"), ("b",), ("y", "z"), None)
    assert corrupted(right, other, [True, False, True, False]) == ChunkContext(("T", "S", "S"), ("b",), ("x",), None)


class NoWords:
    """In the encoder's place where words do not matter."""

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.zeros((len(texts), 384), np.float32)


def test_documents_are_kept_and_batches_are_padded(tmp_path: Path) -> None:
    [file] = label_documents([3], ["fr"], tmp_path, 1)
    before = file.stat().st_mtime_ns
    assert label_documents([3], ["fr"], tmp_path, 1) == [file] and file.stat().st_mtime_ns == before
    document = load_document(file)
    assert document.language == "fr" and len(document.contexts) == document.num_pages
    encoded = EncodedDocument.of(file, NoWords())  # type: ignore[arg-type]
    pair = [encoded.true_batch(1, 1), encoded.true_batch(1, 2)]
    assert pair[0] is not None and pair[1] is not None
    batch = collate([p for p in pair if p is not None])
    lengths = [len(p["own"]) for p in pair if p is not None]
    assert batch["is_item"].sum(1).tolist() == lengths
    assert batch["crops"].shape == (2, max(lengths), HEIGHT, WIDTH) and batch["crops"].dtype == torch.uint8
    assert (batch["role"][0, lengths[0] :] == IGNORED).all()
    assert batch["page"].max() == 1
