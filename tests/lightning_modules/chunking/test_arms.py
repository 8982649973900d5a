"""The ways of chunking: nothing is lost, pages are right, and each does what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.datamodules.chunking.chunks import Chunk, read_chunks
from fulgurite.datamodules.chunking.lines import table_line, table_of
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.verbatim import tokens
from fulgurite.lightning_modules.chunking.arms.source import ARMS, PagedText, Piece, Source
from fulgurite.lightning_modules.chunking.command import chunk
from fulgurite.lightning_modules.chunking.evaluation.page_texts import page_texts
from fulgurite.lightning_modules.chunking.evaluation.results import text_arms
from fulgurite.lightning_modules.chunking.retrieval.encoder import WINDOW, TextEncoder
from fulgurite.lightning_modules.chunking.retrieval.store import heading_path, shown_text

pytest.importorskip("typst")
pytest.importorskip("docling_core")
pytest.importorskip("langchain_text_splitters")
TEXT_ARMS = ["docling_text", "fixed", "recursive", "semantic"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A typeset price list of six pages, as our reader and as pypdf read it."""
    folder = tmp_path_factory.mktemp("arms")
    pdf = folder / "list.pdf"
    pdf.write_bytes(typeset_document(5, language="en", genre="price_list", num_pages=6).pdf)
    chunk(pdf, folder / "chunks.jsonl")
    chunks: list[Chunk] = list(read_chunks(folder / "chunks.jsonl"))
    texts = page_texts(pdf, chunks[0].source_sha256, folder)
    assert texts == page_texts(Path("not read again"), chunks[0].source_sha256, folder)
    return Source("list.pdf", lambda: texts, chunks, TextEncoder())


def words(text: str) -> set[str]:
    return set(tokens(text))


@pytest.mark.parametrize("arm", sorted(ARMS))
def test_an_arm_loses_no_word_and_knows_its_pages(arm: str, source: Source) -> None:
    pieces: list[Piece] = ARMS[arm](source)
    assert pieces and all(p.text.strip() for p in pieces)
    pages = source.load_pages()
    read = " ".join(shown_text(c) for c in source.chunks)
    everything = " ".join(pages) if arm in TEXT_ARMS else read
    if "fixed" in arm:  # these cut words in two
        whole = source.plain.text if arm == "fixed" else source.read.text
        assert "".join("".join(p.text for p in pieces).split()) == "".join(whole.split())
    else:
        assert words(everything) == words(" ".join(p.text for p in pieces))
    for piece in pieces:
        assert 1 <= piece.page_start <= piece.page_end <= len(pages)
        if arm in TEXT_ARMS and arm != "fixed":
            assert words(piece.text) <= words(" ".join(pages[piece.page_start - 1 : piece.page_end]))
    starts = [p.page_start for p in pieces]
    assert starts == sorted(starts)


def test_arms_that_have_a_limit_keep_it(source: Source) -> None:
    for arm in ("fixed", "recursive", "reader_fixed", "docling", "docling_text"):
        assert max(source.encoder.count(p.text) for p in ARMS[arm](source)) <= WINDOW + 2  # a cut can part a word
    assert set(text_arms(ARMS)) == set(TEXT_ARMS)


def test_ours_gives_each_row_its_header_where_others_cut(source: Source) -> None:
    tables = [t for c in source.chunks if (t := table_of(c.text)) and t[0]]
    assert len(tables) > 10
    ours = [p.text for p in ARMS["ours"](source)]
    for header, rows in tables:
        assert any(all(cell in text for cell in (*header, *rows[0])) for text in ours)


def test_packed_says_a_table_s_header_once_above_its_rows(source: Source) -> None:
    pieces = [p.text for p in ARMS["ours_packed"](source)]
    assert len(pieces) < len(source.chunks) / 2
    single = max(source.encoder.count(shown_text(c)) for c in source.chunks)
    assert max(map(source.encoder.count, pieces)) <= max(WINDOW, single)
    for own in source.chunks:
        if (table := table_of(own.text)) and table[0]:
            head, row = table_line(table[0]), table_line(table[1][0])
            [holder] = {p for p in pieces if row in p and head in p.partition(row)[0]}
            assert holder.count(head) == 1 and holder.startswith(heading_path(own)[0])


def test_semantic_cuts_where_the_subject_changes() -> None:
    pump = "The pump moves water. The pump has a seal. The seal of the pump keeps water in. The pump is made of steel. "
    opera = "The opera begins at eight. The singer sings an aria. The aria of the opera is loved. The singer bows. "
    made = ARMS["semantic"](Source("a", lambda: [pump + opera], [], TextEncoder()))
    assert len(made) == 2 and "opera" not in made[0].text.partition("made of steel.")[0]


def test_a_paged_text_knows_where_it_is() -> None:
    text = PagedText([("one", 1), ("two", 2), ("", 3), ("four", 4)], "\n\n")
    assert [text.page(text.text.index(w)) for w in ("one", "two", "four")] == [1, 2, 4]
    assert text.pieces([(0, len(text.text)), (3, 5)]) == [Piece("one\n\ntwo\n\n\n\nfour", 1, 4)]
