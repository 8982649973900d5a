"""`fulgurite chunking evaluate`: ways of chunking side by side, on documents with questions."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import Progress

from ....registry import COMMANDS, UserError

if TYPE_CHECKING:
    from ....datamodules.chunking.chunks import Chunk
    from ....datamodules.chunking.questions.question import Question
    from .scores import DocumentScores


@COMMANDS.register("chunking evaluate", paper="2506.16035")
def evaluate(
    questions: Path,
    pdfs: Path,
    chunks: Path,
    out: Path,
    arms: list[str] | None = None,
    part: Literal["all", "development", "held_out"] = "all",
    num_development: int = 20,
    used: list[str] | None = None,
) -> None:
    """Compare our chunks with text chunkers at equal retrieved tokens and equal k, by string tests.

    Each arm's scores on a document are kept: the same call again goes on where it was stopped.

    Args:
        questions: file of questions, one JSON object a line (datamodules/chunking/questions/question.py says which), or
            `papers` for those that come with fulgurite, about the source papers-pdf.
        pdfs: folder of the documents, or a source of them; those without a question are left out.
        chunks: a chunks.jsonl, or a folder of them, that covers these documents.
        out: folder for scores, cached vectors, results.json and the plot.
        arms: ways of chunking; default: all (`fulgurite list arms`).
        part: which part of the documents, split by the digest of their bytes.
        num_development: size of the part development.
        used: file names that were looked at before the split, so they belong to development.
    """
    from ....datamodules.chunking.questions.question import read_questions
    from ....datamodules.files import write_json
    from ..arms.source import ARMS, Source
    from ..retrieval.encoder import TextEncoder
    from .contract import contract_row
    from .figure import draw_answers
    from .page_texts import page_texts
    from .procedures import procedure_scores
    from .results import compare
    from .scores import score_document

    names = arms or list(ARMS)
    if unknown := [n for n in names if n not in ARMS]:
        ARMS[unknown[0]]  # raises, and names the nearest
    asked: dict[str, list[Question]] = defaultdict(list)
    for question in read_questions(questions):
        asked[question.pdf].append(question)
    files = [f for f in _part(pdfs, part, num_development, used or []) if f.name in asked]
    if not files:
        raise UserError(f"{questions}: asks nothing about the PDFs of {pdfs} (part: {part})")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    encoder = TextEncoder(cache=out / "vectors.sqlite")
    scores: dict[str, dict[str, DocumentScores]] = defaultdict(dict)
    contract: list[list[object]] = []
    held: dict[str, list[Chunk]] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("documents", total=len(files) * len(names))
        for file, digest, own in _with_chunks(files, chunks):
            if not own:
                console.print(f"{file.name}: has no chunk, so arms that need chunks find nothing in it", markup=False)
            load = functools.partial(page_texts, file, digest, out / "texts")
            source = Source(file.name, load, own, encoder)
            for name in names:
                scores[name][file.name] = score_document(name, source, asked[file.name], out / "scores", digest)
                bar.advance(task)
            contract.append(contract_row(file, own))
            held[file.name] = own
            if not console.is_terminal:
                console.print(f"{file.name}: scored", markup=False)
    chosen = [q for f in files for q in asked[f.name]]
    results = compare(scores, chosen, contract)
    tables, metrics = procedure_scores(held)
    results["tables"] += tables
    results["metrics"] |= metrics
    draw_answers(results.pop("curves"), out / "answers.png")
    write_json(out / "results.json", {"schema_version": 1, **results, "figures": ["answers.png"]})
    for statement in results["statements"]:
        console.print(statement, markup=False)


def _part(pdfs: Path, part: str, num_development: int, used: Sequence[str]) -> list[Path]:
    from ....datamodules.chunking.questions.question import split_documents
    from ..command import find_pdfs

    files = find_pdfs(pdfs)
    if part == "all":
        return files
    development, held_out = split_documents(files, num_development, used)
    return development if part == "development" else held_out


def _with_chunks(files: Sequence[Path], chunks: Path) -> Iterator[tuple[Path, str, list[Chunk]]]:
    """Each document with its digest and its chunks, one after the other; a document of pictures alone may have none.

    Raises:
        UserError: if there are no chunks of any document, twice those of one, or they were made from other bytes.
    """
    from ....datamodules.chunking.chunks import read_chunks

    held = sorted(chunks.glob("*.jsonl")) if chunks.is_dir() else [chunks]
    if not held:
        raise UserError(
            f"{chunks}: holds no .jsonl file\nMake one: fulgurite chunking chunk PDFS --out {chunks}/all.jsonl"
        )
    wanted = {f.name for f in files}
    found: dict[str, list[Chunk]] = defaultdict(list)
    for file in held:
        seen = set()
        for chunk in read_chunks(file):
            if chunk.source in wanted:
                if chunk.source in found and chunk.source not in seen:
                    raise UserError(f"{file}: {chunk.source} has chunks in another file of {chunks} too")
                seen.add(chunk.source)
                found[chunk.source].append(chunk)
    if not found:
        raise UserError(f"{chunks}: has no chunk of any of the documents\nMake them: fulgurite chunking chunk PDFS")
    for pdf in files:
        own = found.pop(pdf.name, [])
        with open(pdf, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if own and own[0].source_sha256 != digest:
            raise UserError(f"{chunks}: the chunks of {pdf.name} come from other bytes\nRead it again.")
        yield pdf, digest, own
