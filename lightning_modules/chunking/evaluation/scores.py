"""One arm on one document: every question by every search mode at every budget, kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....datamodules.chunking.questions.question import Question
from ....datamodules.chunking.questions.scoring import holds_answer, holds_cell
from ....datamodules.files import write_json
from ..arms.source import ARMS, Piece, Source
from ..retrieval.encoder import TextEncoder
from ..retrieval.ranking import MODES, Ranker
from .contexts import JUDGED_K, Context, write_contexts

SCHEMA_VERSION = 3
TOKEN_BUDGETS = (500, 1500, 3000)
COUNT_BUDGETS = (1, 5, 10)
BUDGETS = (*(f"{n} tokens" for n in TOKEN_BUDGETS), *(f"k = {n}" for n in COUNT_BUDGETS))
MEASURES = ("answer", "strict", "some page", "every page")


@dataclass(frozen=True)
class DocumentScores:
    """What an arm got on a document.

    Attributes:
        num_pieces: chunks it made.
        num_tokens: tokens of all of them.
        exists: question's id -> whether the answer stands in one chunk (strictly, for a cell), whoever searches.
        found: question's id -> mode -> budget -> the four `MEASURES`; None where a measure does not apply.
    """

    num_pieces: int
    num_tokens: int
    exists: dict[str, bool]
    found: dict[str, dict[str, dict[str, list[bool | None]]]]


def score_document(
    arm: str, source: Source, questions: Sequence[Question], folder: Path, document_sha256: str
) -> DocumentScores:
    """An arm's scores on a document: those on disk if nothing that they depend on has changed, else new ones.

    Args:
        arm: its registered name.
        source: the document.
        questions: those about it.
        folder: where scores are kept.
        document_sha256: digest of the PDF.
    """
    file = folder / arm / f"{source.name}.json"
    key = _key(arm, source, questions, document_sha256)
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["key"] == key:
            return DocumentScores(**{k: held[k] for k in DocumentScores.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, of an earlier state, or damaged: scored anew
    pieces: list[Piece] = ARMS[arm](source)
    made, contexts = score_pieces(pieces, questions, source.encoder)
    write_contexts(folder.parent / "contexts" / arm / f"{source.name}.jsonl", contexts)
    write_json(file, {"schema_version": SCHEMA_VERSION, "key": key, **made.__dict__})
    return made


def score_pieces(
    pieces: Sequence[Piece], questions: Sequence[Question], encoder: TextEncoder
) -> tuple[DocumentScores, list[Context]]:
    """Every question on a document's pieces: scores, and the ten nearest pieces for the judge."""
    texts = [p.text for p in pieces]
    lengths = [encoder.count(t) for t in texts]
    ranker = Ranker(texts, encoder)
    exists: dict[str, bool] = {}
    found: dict[str, dict[str, dict[str, list[bool | None]]]] = {}
    contexts = []
    for question in questions:
        if question.cell is not None:
            exists[question.id] = any(holds_cell(question.cell, t) for t in texts)
        elif question.searchable:
            exists[question.id] = any(holds_answer(question, [t]) for t in texts)
        orders = ranker.order(question.question)
        nearest = [texts[k] for k in orders["vector"][:JUDGED_K]]
        contexts.append(Context(question.id, question.question, nearest))
        found[question.id] = {
            mode: {
                budget: _measures(question, *chosen)
                for budget, chosen in zip(BUDGETS, _retrieved(order, pieces, lengths, encoder), strict=True)
            }
            for mode, order in orders.items()
        }
    return DocumentScores(len(pieces), sum(lengths), exists, found), contexts


def take(
    order: Sequence[int], pieces: Sequence[Piece], lengths: Sequence[int], encoder: TextEncoder, num_tokens: int
) -> tuple[list[str], set[int]]:
    """Texts of the best pieces until they have `num_tokens` tokens, the last one cut to fit, and the pages of these."""
    texts: list[str] = []
    pages: set[int] = set()
    left = num_tokens
    for number in order:
        if left <= 0:
            break
        piece = pieces[number]
        texts.append(piece.text if lengths[number] <= left else encoder.cut(piece.text, left))
        pages |= set(range(piece.page_start, piece.page_end + 1))
        left -= lengths[number]
    return texts, pages


def _retrieved(
    order: Sequence[int], pieces: Sequence[Piece], lengths: Sequence[int], encoder: TextEncoder
) -> list[tuple[list[str], set[int]]]:
    by_tokens = [take(order, pieces, lengths, encoder, n) for n in TOKEN_BUDGETS]
    by_count = [
        (
            [pieces[k].text for k in order[:n]],
            {page for k in order[:n] for page in range(pieces[k].page_start, pieces[k].page_end + 1)},
        )
        for n in COUNT_BUDGETS
    ]
    return [*by_tokens, *by_count]


def _measures(question: Question, texts: Sequence[str], pages: set[int]) -> list[bool | None]:
    answer = holds_answer(question, texts) if question.searchable else None
    strict = any(holds_cell(question.cell, t) for t in texts) if question.cell is not None else None
    wanted = set(question.pages)
    return [answer, strict, bool(wanted & pages) if wanted else None, wanted <= pages if wanted else None]


def _key(arm: str, source: Source, questions: Sequence[Question], document_sha256: str) -> str:
    digest = hashlib.sha256(
        f"{SCHEMA_VERSION} {arm} {source.encoder.name} {MODES} {BUDGETS} {document_sha256}".encode()
    )
    for question in questions:
        digest.update(repr(question).encode("utf-8", "surrogatepass"))
    for chunk in source.chunks:
        digest.update(chunk.to_line().encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
