"""A whole document, batch by batch: what was read goes to a journal, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...datamodules.chunking.chunks import Chunk, PlacedChunk, number_chunks, placed_from_json, placed_to_json
from ...datamodules.chunking.context import ChunkContext
from ...datamodules.chunking.contract import TaggedChunk, complete_headings, parse
from ...datamodules.chunking.figures import embedded_text, pictures_passed_over
from ...datamodules.chunking.merging import MergePolicy, merge
from ...datamodules.chunking.page_ranges import RangeCheck, check_ranges
from ...datamodules.chunking.pages import Document, PageBatch
from ...datamodules.chunking.parting import part_questions
from ...datamodules.chunking.places import place_chunks
from ...datamodules.chunking.rules import Violation, validate_answer, validate_chunks
from ...datamodules.chunking.verbatim import PageFidelity, page_fidelity
from .readers.protocol import PageReader, PlacedAnswer, PlacingReader

JOURNAL_VERSION = 1


@dataclass(frozen=True)
class ReadBatch:
    """One line of the journal.

    Attributes:
        pages: page numbers.
        chunks: chunks of the answer, three headings each, with places.
        left_out: page number -> text that was dropped by the rules.
        context: the state after it.
        seconds: how long it took.
        violations: how many rules the answer broke, before merging mended what it can.
    """

    pages: tuple[int, ...]
    chunks: tuple[PlacedChunk, ...]
    left_out: dict[int, str]
    context: ChunkContext
    seconds: float
    violations: int


@dataclass
class DocumentResult:
    """What a document gave.

    Attributes:
        source: its file name.
        chunks: its chunks.
        violations: rules that they still break.
        answer_violations: rules that the reader's answers broke, before merging.
        fidelity: per page with a text layer.
        ranges: whether the chunks' page ranges are borne out by the text layer.
        pages: numbers of the pages that were read.
        pages_without_text: numbers of pages that have no text layer, and off whose picture nothing was read.
        seconds: time of reading, also of an earlier call that this one went on from.
        resumed: batches taken from the journal.
        pages_by_ocr: numbers of pages that were read off their picture.
        ocr_seconds: what that took, also in an earlier call that this one went on from, and on pages that were
            not asked for but tell the document's style.
        layout_seconds: time of the layout network that finds figures, in this call.
        pictures_passed_over: embedded pictures whose words were not read, as larger ones took their document's share.
    """

    source: str
    chunks: list[Chunk]
    violations: list[Violation]
    answer_violations: int
    fidelity: list[PageFidelity]
    ranges: RangeCheck
    pages: list[int]
    pages_without_text: list[int]
    seconds: float
    resumed: int = 0
    pages_by_ocr: list[int] = field(default_factory=list)
    ocr_seconds: float = 0.0
    layout_seconds: float = 0.0
    pictures_passed_over: int = 0


def read_document(
    document: Document,
    reader: PageReader,
    reader_name: str,
    numbers: Sequence[int],
    batch_pages: int,
    policy: MergePolicy,
    journal: Path,
    progress: Callable[[int], None] = lambda pages: None,
) -> DocumentResult:
    """Read, merge, number and check one document.

    Args:
        document: the open PDF.
        reader: what reads its pages.
        reader_name: name that the chunks carry.
        numbers: page numbers to read.
        batch_pages: pages of a batch.
        policy: how chunks are merged.
        journal: file that is written batch by batch, and gone on from if it was begun with the same settings.
        progress: told how many pages are done, after each batch.

    Raises:
        UserError: what the reader or the document raises; the journal keeps what was read.
    """
    head = {
        "schema_version": JOURNAL_VERSION,
        "source_sha256": document.sha256,
        "reader": reader_name,
        "settings": reader.settings(),
        "pages": list(numbers),
        "batch_pages": batch_pages,
        "ocr": document.ocr.mode if document.ocr else "never",
    }
    eyes = document.ocr
    before = (eyes.seconds, eyes.network.seconds) if eyes else (0.0, 0.0)
    done = _resume(journal, head)
    resumed = len(done)
    progress(sum(len(b.pages) for b in done))
    context = done[-1].context if done else ChunkContext()
    with open(journal, "ab") as file:
        for batch in document.batches(numbers[sum(len(b.pages) for b in done) :], batch_pages):
            part = _read_batch(batch, reader, context)
            context = part.context
            file.write(_line(_to_json(part)))
            file.flush()
            os.fsync(file.fileno())
            done.append(part)
            progress(len(part.pages))
    merged = part_questions(merge((c for part in done for c in part.chunks), policy), document)
    chunks = number_chunks(merged, document.path.name, document.sha256, reader_name)
    left_out = {page: text for part in done for page, text in part.left_out.items()}
    layers: dict[int, str] = {}
    by_ocr: list[int] = []
    ocr_seconds = 0.0
    for n in numbers:
        page = document.page(n)
        layers[n] = "\n".join(part for part in (page.text, embedded_text(page)) if part)
        if page.read is not None and page.text.strip():
            by_ocr.append(n)
            ocr_seconds += page.read.seconds
    return DocumentResult(
        source=document.path.name,
        chunks=chunks,
        violations=validate_chunks(
            [TaggedChunk(c.continues, c.headings, c.text) for c in chunks], printed="\n".join(layers.values())
        ),
        answer_violations=sum(part.violations for part in done),
        fidelity=page_fidelity(chunks, {n: t for n, t in layers.items() if t.strip()}, left_out),
        ranges=check_ranges(chunks, layers),
        pages=list(numbers),
        pages_without_text=[n for n, t in layers.items() if not t.strip()],
        seconds=sum(part.seconds for part in done),
        resumed=resumed,
        pages_by_ocr=by_ocr,
        ocr_seconds=max(ocr_seconds, eyes.seconds - before[0]) if eyes else 0.0,
        layout_seconds=eyes.network.seconds - before[1] if eyes else 0.0,
        pictures_passed_over=pictures_passed_over(document, numbers) if eyes and eyes.mode == "auto" else 0,
    )


def read_batches(journal: Path) -> list[ReadBatch]:
    """Batches of a finished journal, as the reader answered, before merging."""
    return [_from_json(json.loads(line)) for line in journal.read_bytes().splitlines()[1:]]


def _read_batch(batch: PageBatch, reader: PageReader, context: ChunkContext) -> ReadBatch:
    start = time.perf_counter()
    if isinstance(reader, PlacingReader):
        placed = reader.read_placed(batch, context)
        wrong = validate_chunks([c.tagged for c in placed.chunks], context, "\n".join(p.text for p in batch.pages))
    else:
        answer = reader.read(batch, context)
        texts = [page.text for page in batch.pages]
        wrong = validate_answer(answer, context, texts, first_batch=not context.headings)
        placed = PlacedAnswer(tuple(place_chunks(_completed(answer, context), batch)))
    after = context.advance([c.tagged for c in placed.chunks])
    seconds = time.perf_counter() - start
    return ReadBatch(batch.numbers, placed.chunks, placed.left_out, after, seconds, len(wrong))


def _completed(answer: str, context: ChunkContext) -> list[TaggedChunk]:
    """Chunks of an answer with three headings each; empty ones are dropped."""
    above: Sequence[str] = context.headings
    found = []
    for chunk in parse(answer, context.headings).chunks:
        if chunk.text:
            above = complete_headings(chunk.headings, above)
            found.append(TaggedChunk(chunk.continues, tuple(above), chunk.text))
    return found


def _to_json(part: ReadBatch) -> dict[str, Any]:
    return {
        "pages": list(part.pages),
        "chunks": [placed_to_json(c) for c in part.chunks],
        "left_out": {str(k): v for k, v in part.left_out.items()},
        "context": part.context.to_json(),
        "seconds": part.seconds,
        "violations": part.violations,
    }


def _line(held: dict[str, Any]) -> bytes:
    return (json.dumps(held, ensure_ascii=True) + "\n").encode()


def _resume(journal: Path, head: dict[str, Any]) -> list[ReadBatch]:
    """Batches of a journal with the same head; a line that a kill cut off is removed, another journal is begun anew."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    content = journal.read_bytes() if journal.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.splitlines()
    try:
        if lines and json.loads(lines[0]) == head:
            done = [_from_json(json.loads(line)) for line in lines[1:]]
            os.truncate(journal, len(whole))
            return done
    except (ValueError, KeyError, TypeError):
        pass  # not ours, or damaged: what it holds is read again
    journal.write_bytes(_line(head))
    return []


def _from_json(held: dict[str, Any]) -> ReadBatch:
    return ReadBatch(
        tuple(held["pages"]),
        tuple(placed_from_json(c) for c in held["chunks"]),
        {int(k): v for k, v in held["left_out"].items()},
        ChunkContext.from_json(held["context"]),
        held["seconds"],
        held["violations"],
    )
