"""Chunks in LanceDB, a database that is a folder: vectors, words and what is shown with a hit.

    FOLDER/index.json         which generation counts, its model, its documents with their digests
    FOLDER/g-0123456789ab/    one generation: the tables `chunks` and `windows`

A new state is written as a generation of its own, and counts from the moment when index.json is renamed into place:
a call that is killed leaves the old one. Documents whose digest and chunks are unchanged keep their vectors. A chunk
longer than the encoder's window has several vectors and counts by its best.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.files import write_json
from ....registry import UserError, install_line
from .encoder import TextEncoder
from .ranking import Mode, fuse
from .words import words

SCHEMA_VERSION = 1
MANIFEST = "index.json"
DEPTH = 200  # chunks of each list that are ranked
NEEDS = f"the index needs the package lancedb\n{install_line('chunking')}"


@dataclass(frozen=True)
class Hit:
    """A found chunk.

    Attributes:
        id: as in chunks.jsonl.
        text: what is shown: headings, then the chunk's text.
        headings: title, section, subject; a level that repeats the one above is left out.
        source: file name of the document.
        page_start: first page, from 1.
        page_end: last page, inclusive.
        kind: text, table_row, steps, list, faq or figure.
    """

    id: str
    text: str
    headings: tuple[str, ...]
    source: str
    page_start: int
    page_end: int
    kind: str


def shown_text(chunk: Chunk) -> str:
    """What is searched and shown of a chunk: its headings in a line, then its text."""
    return f"{' > '.join(heading_path(chunk))}\n{chunk.text}".strip()


def heading_path(chunk: Chunk) -> list[str]:
    """A chunk's headings; a level that only repeats the one above, as missing ones do, is left out."""
    return [h for k, h in enumerate(chunk.headings) if h and (k == 0 or h != chunk.headings[k - 1])]


class ChunkIndex:
    """An index on disk, open for questions.

    Args:
        folder: where `build_index` put it.

    Raises:
        UserError: if there is none, it is something else, of a later version, or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        held = read_manifest(folder)
        if held is None:
            raise UserError(f"{folder}: holds no index\nMake one: fulgurite chunking index chunks.jsonl --out {folder}")
        self.documents: dict[str, dict[str, Any]] = held["documents"]
        self.encoder = TextEncoder(held["model"])
        try:
            database = _lancedb().connect(str(folder / held["generation"]))
            self._chunks, self._windows = database.open_table("chunks"), database.open_table("windows")
        except (ValueError, OSError, RuntimeError) as error:
            raise UserError(
                f"{folder}: a part of the index is missing or damaged: {str(error)[:120]}\nIndex the chunks again."
            ) from None

    def order(self, question: str, mode: Mode) -> list[str]:
        """Ids of at most `DEPTH` chunks, best first (retrieval/ranking.py says how the two lists become one)."""
        lists = []
        if mode in ("vector", "hybrid"):
            lists.append(self._by_vector(question))
        if mode in ("text", "hybrid"):
            lists.append(self._by_words(question))
        if len(lists) == 1:
            return lists[0]
        numbers = {identity: n for n, identity in enumerate(dict.fromkeys(i for one in lists for i in one))}
        names = list(numbers)
        return [names[n] for n in fuse([[numbers[i] for i in one] for one in lists])][:DEPTH]

    def search(self, question: str, mode: Mode, k: int | None = None, num_tokens: int | None = None) -> list[Hit]:
        """The best chunks: `k` of them, or as many as have `num_tokens` tokens together; at least one.

        A chunk is never cut: the one that would exceed `num_tokens` ends the list.
        """
        ids = self.order(question, mode)[: k or DEPTH]
        rows = {row["id"]: row for row in self._rows(ids)}
        hits: list[Hit] = []
        left = num_tokens
        for identity in ids:
            row = rows[identity]
            if left is not None:
                left -= row["num_tokens"]
                if left < 0 and hits:
                    break
            hits.append(
                Hit(row["id"], row["text"], tuple(row["headings"]), row["source"], row["page_start"], row["page_end"],
                    row["kind"])
            )  # fmt: skip
        return hits

    def _by_vector(self, question: str) -> list[str]:
        vector = self.encoder.vectors([question])[0]
        query = (
            self._windows.search(vector, vector_column_name="vector")
            .distance_type("cosine")
            .select(["chunk", "_distance"])
        )
        return list(dict.fromkeys(row["chunk"] for row in query.limit(4 * DEPTH).to_list()))[:DEPTH]

    def _by_words(self, question: str) -> list[str]:
        asked = " ".join(dict.fromkeys(words(question)))
        if not asked:
            return []
        query = self._chunks.search(asked, query_type="fts").select(["id", "_score"]).limit(DEPTH)
        return [row["id"] for row in query.to_list()]

    def _rows(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        names = ", ".join(f"'{i}'" for i in ids)  # digits, letters and hyphens: build_index saw to that
        rows: list[dict[str, Any]] = self._chunks.search().where(f"id IN ({names})").limit(len(ids)).to_list()
        return rows


def build_index(
    folder: Path,
    documents: dict[str, list[Chunk]],
    model: str = "minilm-l6",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write an index of documents; those of an index that is there stay in it, a document given again takes its place.

    Args:
        folder: where it lies.
        documents: digest of a document's bytes -> its chunks.
        model: sentence encoder.
        progress: told how many of the texts are encoded.

    Returns:
        How many documents were encoded, and how many were unchanged or kept.

    Raises:
        UserError: if the folder holds something else or another call is writing it.
    """
    from filelock import FileLock, Timeout

    if folder.is_file():
        raise UserError(f"{folder}: is a file; --out is a folder")
    if read_manifest(folder) is None and folder.is_dir() and any(_foreign(folder)):
        raise UserError(f"{folder}: holds something else than an index, and is left alone\nChoose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _build(folder, documents, model, progress)
    except Timeout:
        raise UserError(f"{folder}: another call is writing it\nWait for it, or choose another --out.") from None


def _build(
    folder: Path, documents: dict[str, list[Chunk]], model: str, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    old = read_manifest(folder)
    if old is not None and old["model"] != model:
        old = None
    known: dict[str, dict[str, Any]] = dict(old["documents"]) if old else {}
    fresh = {sha: chunks for sha, chunks in documents.items() if known.get(sha, {}).get("chunks") != _digest(chunks)}
    kept = [sha for sha in known if sha not in fresh]
    generation = f"g-{uuid.uuid4().hex[:12]}"
    try:
        encoder = TextEncoder(model)
        database = _lancedb().connect(str(folder / generation))
        source = _lancedb().connect(str(folder / old["generation"])) if old else None
        for name, made in (
            ("chunks", _chunk_rows(fresh, encoder)),
            ("windows", _window_rows(fresh, encoder, progress)),
        ):
            batches = [made] if made is not None else []
            if source is not None and kept:
                which = ", ".join(f"'{sha}'" for sha in kept)
                table = source.open_table(name)
                batches.append(table.search().where(f"sha256 IN ({which})").limit(table.count_rows()).to_arrow())
            if not any(b.num_rows for b in batches):
                raise UserError("there is no chunk to index")
            table = database.create_table(name, batches[0])
            for batch in batches[1:]:
                table.add(batch)
            if name == "chunks":
                from lancedb.index import FTS

                table.create_index(
                    "words",
                    config=FTS(base_tokenizer="whitespace", stem=False, remove_stop_words=False, lower_case=False,
                               ascii_folding=False, with_position=False),
                )  # fmt: skip
        entries = {sha: known[sha] for sha in kept}
        entries |= {
            sha: {"source": chunks[0].source, "num_chunks": len(chunks), "chunks": _digest(chunks)}
            for sha, chunks in fresh.items()
        }
        head = {"schema_version": SCHEMA_VERSION, "holds": "fulgurite chunk index", "model": model}
        write_json(folder / MANIFEST, {**head, "generation": generation, "documents": entries})
    except BaseException:
        shutil.rmtree(folder / generation, ignore_errors=True)
        raise
    for other in folder.glob("g-*"):
        if other.name != generation:
            shutil.rmtree(other, ignore_errors=True)
    return len(fresh), len(kept)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of an index's index.json; None where there is no such file.

    Raises:
        UserError: if it is something else, damaged, or of another version.
    """
    file = folder / MANIFEST
    try:
        held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read: {error}") from None
    if not isinstance(held, dict) or held.get("holds") != "fulgurite chunk index":
        raise UserError(f"{file}: is no index of fulgurite")
    if held.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{file}: schema_version {held.get('schema_version')}, this fulgurite reads {SCHEMA_VERSION}\n"
            "Remove the folder and index the chunks again."
        )
    return held


def _foreign(folder: Path) -> Iterator[Path]:
    return (f for f in folder.iterdir() if not f.name.startswith("g-") and f.name != ".lock")


def _chunk_rows(documents: dict[str, list[Chunk]], encoder: TextEncoder) -> Any:
    rows: dict[str, list[Any]] = defaultdict(list)
    for sha, chunks in documents.items():
        for chunk in chunks:
            text = shown_text(chunk)
            values = {
                "id": chunk.id, "sha256": sha, "source": chunk.source, "text": text, "words": " ".join(words(text)),
                "headings": heading_path(chunk), "page_start": chunk.page_start, "page_end": chunk.page_end,
                "kind": chunk.kind, "num_tokens": encoder.count(text),
            }  # fmt: skip
            for name, value in values.items():
                rows[name].append(value)
    return _arrow().table(dict(rows)) if rows else None


def _window_rows(documents: dict[str, list[Chunk]], encoder: TextEncoder, progress: Callable[[int, int], None]) -> Any:
    owners = [(c.id, sha, w) for sha, own in documents.items() for c in own for w in encoder.windows(shown_text(c))]
    if not owners:
        return None
    distinct = len({w for _, _, w in owners})
    vectors = encoder.vectors([w for _, _, w in owners], lambda done: progress(done, distinct))
    arrow = _arrow()
    column = arrow.FixedSizeListArray.from_arrays(arrow.array(np.ravel(vectors)), vectors.shape[1])
    return arrow.table({"chunk": [i for i, _, _ in owners], "sha256": [s for _, s, _ in owners], "vector": column})


def _digest(chunks: Sequence[Chunk]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.to_line().encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _lancedb() -> Any:
    with contextlib.suppress(ImportError):
        import lancedb

        return lancedb
    raise UserError(NEEDS)


def _arrow() -> Any:
    import pyarrow

    return pyarrow
