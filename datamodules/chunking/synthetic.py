"""Typeset documents as the trained chunker sees them, one file a seed, made in several processes and kept."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import atomic_write
from .context import ChunkContext
from .labels import IGNORED, label_items, true_context
from .layout.features import NUM_OWN
from .layout.pictures import HEIGHT, WIDTH
from .layout.seen_page import SeenPage
from .layout.style import document_style
from .pages import Document
from .typeset.document import typeset_document
from .typeset.truth import Truth

SCHEMA_VERSION = 1
NOT_ITEMS = ("module.py", "scores.py", "state.py", "text_states.py", "statistics.py", "merging.py", "rules.py")


@dataclass(frozen=True)
class LabelledDocument:
    """A document's items with their labels. Axis legend: N item, F number, H pixels down, W pixels across.

    Attributes:
        seed: it was typeset from.
        language: code of its language.
        pages: [N] page number of each item, from 1.
        own_NF: features.own_features.
        crops_NHW: pictures.crops.
        texts: N texts for the encoder.
        role, begins, flag: labels.Labels, [N] int64 each.
        items_json: what `related_features` needs: (page, part, kind, text, cells) of each item.
        contexts: the true context before each page, from page 1.
    """

    seed: int
    language: str
    pages: np.ndarray
    own_NF: np.ndarray
    crops_NHW: np.ndarray
    role: np.ndarray
    begins: np.ndarray
    flag: np.ndarray
    items: list[dict[str, object]]
    contexts: list[ChunkContext]

    @property
    def num_pages(self) -> int:
        """Pages of the document."""
        return len(self.contexts)

    @property
    def num_unmatched(self) -> int:
        """Items for which the truth has no part; the losses leave them out."""
        return int((self.role == IGNORED).sum())


def label_document(seed: int, language: str, folder: Path) -> Path:
    """Typeset a document and write what the chunker sees of it to `<folder>/<seed>.npz`; returns the file."""
    out = document_file(folder, seed, language)
    made = typeset_document(seed, language=language)
    with tempfile.TemporaryDirectory() as held:
        pdf = Path(held) / f"{seed}.pdf"
        pdf.write_bytes(made.pdf)
        with Document(pdf) as document:
            style = document_style(document)
            seen = [SeenPage.of(document.page(n), style) for n in range(1, document.num_pages + 1)]
    _write(out, seen, made.truth)
    return out


def document_file(folder: Path, seed: int, language: str) -> Path:
    """Where a document's items lie."""
    return folder / f"v{SCHEMA_VERSION}-{language}-{seed}.npz"


def _write(out: Path, seen: Sequence[SeenPage], truth: Truth) -> None:
    items = [item for page in seen for item in page.items]
    labels = label_items(items, truth)
    told = [{"page": i.page, "part": i.part, "kind": i.kind, "text": i.text, "cells": list(i.cells)} for i in items]
    contexts = [true_context(truth, page).to_json() for page in range(1, truth.num_pages + 1)]
    head = {"seed": truth.seed, "language": truth.language, "items": told, "contexts": contexts}
    arrays = {
        "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        "own": np.concatenate([np.zeros((0, NUM_OWN), np.float32), *(p.own_NF for p in seen)]),
        "crops": np.concatenate([np.zeros((0, HEIGHT, WIDTH), np.uint8), *(p.crops_NHW for p in seen)]),
        "role": labels.role,
        "begins": labels.begins,
        "flag": labels.flag,
    }
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_document(path: Path) -> LabelledDocument:
    """Read what `label_document` wrote."""
    with np.load(path, allow_pickle=False) as held:
        head = json.loads(held["head"].tobytes())
        pages = np.asarray([i["page"] for i in head["items"]], np.int64)
        contexts = [ChunkContext.from_json(c) for c in head["contexts"]]
        return LabelledDocument(
            head["seed"],
            head["language"],
            pages,
            held["own"],
            held["crops"],
            held["role"],
            held["begins"],
            held["flag"],
            head["items"],
            contexts,
        )


def label_documents(seeds: Sequence[int], languages: Sequence[str], folder: Path, num_workers: int) -> list[Path]:
    """Files of documents; those that are missing are made, and a call that was cut off goes on where it was.

    Args:
        seeds: of the documents.
        languages: codes, dealt out in turn by the seed.
        folder: where they are kept; a folder for this state of the code is made in it.
        num_workers: processes that typeset.
    """
    folder = folder / code_digest()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(seed, languages[seed % len(languages)]) for seed in seeds]
    missing = [(seed, lang) for seed, lang in wanted if not document_file(folder, seed, lang).is_file()]
    start, done = time.monotonic(), 0
    if missing:
        with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(label_document, *zip(*missing, strict=True), [folder] * len(missing)):
                done += 1
                if done % 50 == 0 or done == len(missing):
                    spent = time.monotonic() - start
                    print(f"typeset {done} of {len(missing)} documents in {spent:.0f} s", file=sys.stderr, flush=True)
    return [document_file(folder, seed, lang) for seed, lang in wanted]


@functools.cache
def code_digest() -> str:
    """Digest of the code that makes the items and labels: what another state of it wrote is not taken up."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted(f for f in here.rglob("*") if f.suffix in (".py", ".typ", ".yaml") and f.name not in NOT_ITEMS):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
