"""`fulgurite chunking index` and `ask`: a real LanceDB, real vectors, and what is told when the folder is wrong."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fulgurite.datamodules.chunking.chunks import Chunk, read_chunks, write_chunks
from fulgurite.lightning_modules.chunking.command import chunk
from fulgurite.lightning_modules.chunking.retrieval import store
from fulgurite.lightning_modules.chunking.retrieval.command import ask, cited, index
from fulgurite.lightning_modules.chunking.retrieval.encoder import WINDOW, TextEncoder
from fulgurite.lightning_modules.chunking.retrieval.llama_index import load_nodes
from fulgurite.lightning_modules.chunking.retrieval.ranking import Ranker, WordIndex, fuse
from fulgurite.lightning_modules.chunking.retrieval.store import ChunkIndex, build_index, shown_text
from fulgurite.lightning_modules.chunking.retrieval.words import words
from fulgurite.registry import UserError

pytest.importorskip("lancedb")
QUESTION = "price of the washer K17"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder(cache=tmp_path_factory.mktemp("vectors") / "v.sqlite")


@pytest.fixture
def chunks(manual: Path, tmp_path: Path) -> Path:
    out = tmp_path / "chunks.jsonl"
    chunk(manual, out)
    return out


def renamed(chunks: list[Chunk], sha: str, source: str) -> list[Chunk]:
    return [dataclasses.replace(c, id=f"{sha[:12]}-{c.id[-5:]}", source=source, source_sha256=sha) for c in chunks]


def test_ask_shows_the_row_with_header_page_and_headings(
    chunks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "index"
    index(chunks, folder)
    for mode in ("text", "hybrid"):
        ask(QUESTION, folder, mode=mode, k=1)
        said = capsys.readouterr().out
        assert "manual.pdf, page 4, table row" in said and "2 Parts" in said
        assert "| Code | Part | Price |" in said and "| K17 | washer size 17 | 17.50 |" in said
    ask("in which order are the bolts turned?", folder, mode="vector", k=3)
    assert "Turn bolt number 7" in capsys.readouterr().out


def test_as_many_chunks_as_fit_the_tokens_and_none_is_cut(chunks: Path, tmp_path: Path) -> None:
    index(chunks, tmp_path / "index")
    opened = ChunkIndex(tmp_path / "index")
    hits = opened.search(QUESTION, "hybrid", num_tokens=200)
    used = sum(opened.encoder.count(h.text) for h in hits)
    assert len(hits) > 2 and used <= 200
    following = opened.search(QUESTION, "hybrid", k=len(hits) + 1)
    assert following[: len(hits)] == hits and used + opened.encoder.count(following[-1].text) > 200
    assert len(opened.search(QUESTION, "hybrid", num_tokens=1)) == 1
    whole = {shown_text(c) for c in read_chunks(chunks)}
    assert all(h.text in whole for h in hits)


def test_the_database_ranks_as_the_evaluation_does(chunks: Path, tmp_path: Path, encoder: TextEncoder) -> None:
    held = list(read_chunks(chunks))
    index(chunks, tmp_path / "index")
    opened = ChunkIndex(tmp_path / "index")
    for question in (QUESTION, "how heavy is the pump?"):
        expected = Ranker([shown_text(c) for c in held], encoder).order(question)
        assert opened.order(question, "vector")[:10] == [held[k].id for k in expected["vector"][:10]]
        assert opened.order(question, "text")[0] == held[expected["text"][0]].id
        assert set(opened.order(question, "text")) == {held[k].id for k in expected["text"]}


def test_unchanged_documents_are_not_encoded_again(
    chunks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list(read_chunks(chunks))
    first, second = renamed(held, "a" * 64, "a.pdf"), renamed(held[:5], "b" * 64, "b.pdf")
    folder = tmp_path / "index"
    assert build_index(folder, {"a" * 64: first, "b" * 64: second}) == (2, 0)
    seen: list[int] = []
    vectors = TextEncoder.vectors
    monkeypatch.setattr(TextEncoder, "vectors", lambda self, t, *a: seen.append(len(t)) or vectors(self, t, *a))
    changed = [dataclasses.replace(c, text=c.text + "\nzanzibar") for c in second]
    assert build_index(folder, {"a" * 64: first, "b" * 64: changed}) == (1, 1)
    assert seen == [5]
    opened = ChunkIndex(folder)
    assert {h.source for h in opened.search("zanzibar", "text", k=9)} == {"b.pdf"}
    assert {h.source for h in opened.search(QUESTION, "hybrid", k=60)} == {"a.pdf", "b.pdf"}
    assert len([f for f in folder.iterdir() if f.name.startswith("g-")]) == 1


def test_a_call_that_fails_leaves_the_old_index(chunks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    index(chunks, folder)
    before = (folder / "index.json").read_bytes()
    other = renamed(list(read_chunks(chunks)), "c" * 64, "c.pdf")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        build_index(folder, {"c" * 64: other})
    assert (folder / "index.json").read_bytes() == before
    assert len(list(folder.glob("g-*"))) == 1 and ChunkIndex(folder).search(QUESTION, "text", k=1)


def test_what_is_no_index_is_named(chunks: Path, tmp_path: Path) -> None:
    empty, foreign, old, broken = (tmp_path / n for n in ("empty", "foreign", "old", "broken"))
    with pytest.raises(UserError, match="holds no index"):
        ChunkIndex(empty)
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than an index"):
        index(chunks, foreign)
    assert [f.name for f in foreign.iterdir()] == ["notes.txt"]
    index(chunks, old)
    manifest = json.loads((old / "index.json").read_text())
    (old / "index.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    for call in (lambda: ChunkIndex(old), lambda: index(chunks, old)):
        with pytest.raises(UserError, match="schema_version 99, this fulgurite reads 1"):
            call()
    (old / "index.json").write_text('{"name": "npm"}')
    with pytest.raises(UserError, match="is no index of fulgurite"):
        ChunkIndex(old)
    index(chunks, broken)
    for table in next(broken.glob("g-*")).iterdir():
        table.rename(broken / table.name)
    with pytest.raises(UserError, match="missing or damaged"):
        ChunkIndex(broken)
    for options, said in (
        ({"k": 0}, "--k 0"),
        ({"k": 3, "tokens": 9}, "not both"),
        ({"tokens": 0}, "--tokens 0"),
        ({"url": "http://x"}, "--url and --model"),
        ({"question": " "}, "is empty"),
    ):
        with pytest.raises(UserError, match=said):
            ask(**{"question": "x", "index": broken, **options})  # type: ignore[arg-type]


def test_a_language_model_answers_from_the_chunks(
    server: Any, chunks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(chunks, tmp_path / "index")
    url = server.start({"text": "It costs 17.50 [1]. See also [99]."})
    ask(QUESTION, tmp_path / "index", mode="text", k=2, url=url, model="tiny")
    said = capsys.readouterr().out
    assert "Answer: It costs 17.50 [1]." in said and said.rstrip().endswith("[1] manual.pdf, page 4, table row")
    [asked] = server.requests()
    prompt = asked["body"]["messages"][0]["content"]
    assert "| K17 | washer size 17 | 17.50 |" in prompt and QUESTION in prompt
    assert cited("[2, 1] and [2], not [7] nor [a]", 3) == [2, 1]


def test_a_long_text_is_found_by_its_end(encoder: TextEncoder) -> None:
    filler = " ".join(f"bolt {k} is turned by hand until it is tight." for k in range(200))
    long = f"{filler} The zebra lives in the savanna of Africa and eats grass."
    parts = encoder.windows(long)
    assert len(parts) > 3 and all(encoder.count(p) <= WINDOW for p in parts)
    assert "".join("".join(parts).split()) == "".join(long.split())
    texts = ["A horse stands in its stable and eats oats.", long, "The price list of washers."]
    assert Ranker(texts, encoder).order("Where do zebras live?")["vector"][0] == 1
    assert encoder.cut("one two three", 2) == "one two" and encoder.cut("one", 0) == ""


def test_vectors_are_kept_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TextEncoder(cache=tmp_path / "v.sqlite")
    made = first.vectors(["a pump", "a washer", "a pump"])
    assert made.shape == (3, 384) and np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert (made[0] == made[2]).all() and first.vectors([]).shape == (0, 384)
    second = TextEncoder(cache=tmp_path / "v.sqlite")
    monkeypatch.setattr(TextEncoder, "_encode", lambda *_: pytest.fail("encoded again"))
    assert (second.vectors(["a washer", "a pump"]) == made[[1, 0]]).all()


def test_bm25_is_the_formula_and_fusion_adds_reciprocal_ranks() -> None:
    texts = ["pump pump seal", "pump", "the valve", "seal of the valve"]
    assert words("What are the Pumps of K-17?") == ["pump", "k", "17"]
    assert WordIndex(texts).order("a pump") == [1, 0] or WordIndex(texts).order("a pump") == [0, 1]
    idf = np.log(1 + (4 - 2 + 0.5) / 2.5)
    norm = [1.2 * (0.25 + 0.75 * n / 1.75) for n in (3, 1)]
    scores = [idf * 2 * 2.2 / (2 + norm[0]), idf * 2.2 / (1 + norm[1])]
    assert WordIndex(texts).order("pumps") == sorted((0, 1), key=lambda k: -scores[k])
    assert WordIndex(texts).order("the of") == [] and WordIndex([]).order("pump") == []
    assert fuse([[0, 1, 2], [2, 0]]) == [0, 2, 1]


def test_langchain_documents(chunks: Path) -> None:
    pytest.importorskip("langchain_core")
    from fulgurite.lightning_modules.chunking.retrieval.langchain import ChunkLoader

    held, documents = list(read_chunks(chunks)), ChunkLoader(chunks).load()
    assert [d.id for d in documents] == [c.id for c in held]
    row = next(d for d in documents if "K17" in d.page_content)
    assert row.metadata["page_start"] == 4 and row.metadata["kind"] == "table_row"
    assert documents[1].metadata["prev_id"] == documents[0].id


def test_llama_index_nodes(chunks: Path) -> None:
    pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")
    nodes = load_nodes(chunks)
    assert nodes[1].prev_node.node_id == nodes[0].node_id and nodes[0].next_node.node_id == nodes[1].node_id
    assert nodes[0].prev_node is None and nodes[0].source_node.node_id == next(read_chunks(chunks)).source_sha256
    assert "K17" in next(n for n in nodes if "K17" in n.text).get_content("embed")


def test_the_adapters_say_what_they_need(chunks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fulgurite.lightning_modules.chunking.retrieval.langchain"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "langchain_core.document_loaders", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        importlib.import_module(name)
    monkeypatch.setitem(sys.modules, "llama_index.core.schema", None)
    with pytest.raises(UserError, match="pip install llama-index-core"):
        load_nodes(chunks)


def test_a_file_without_chunks_is_told(tmp_path: Path) -> None:
    write_chunks(tmp_path / "none.jsonl", [])
    with pytest.raises(UserError, match="holds no chunk"):
        index(tmp_path / "none.jsonl", tmp_path / "index")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        index(tmp_path / "folder", tmp_path / "index")
