"""All scores as tables and sentences: every arm, every search mode, every budget, whoever is ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ....datamodules.chunking.questions.classes import CLASSES, classify
from ....datamodules.chunking.questions.question import PAGE_KINDS, Question
from ....registry import read_index
from ..retrieval.ranking import MODES, Mode
from .bootstrap import difference
from .contract import contract_table
from .scores import BUDGETS, MEASURES, TOKEN_BUDGETS, DocumentScores

OURS = "ours"
PACKED = "ours_packed"
MAIN = "1500 tokens"
PAPERS_MODE: Mode = "vector"  # the paper retrieves by cosine alone
SEARCH = {"vector": "vector", "text": "BM25", "hybrid": "hybrid"}
Scores = Mapping[str, Mapping[str, DocumentScores]]
Group = tuple[str, str, Callable[[Question], bool]]  # title, measure, which questions

GROUPS: dict[str, Group] = {
    "all": ("Answers of all questions that strings can score, cells by their row", "answer", lambda q: q.searchable),
    "text": ("Answer strings in the retrieved text", "answer", lambda q: q.mode == "text" and q.searchable),
    "human": (
        "Answer strings, questions by people alone",
        "answer",
        lambda q: q.mode == "text" and q.searchable and q.human,
    ),
    "cells": ("Table cells, strict: header, row key and cell in one chunk", "strict", lambda q: q.cell is not None),
    "rows": ("Table cells, the row alone: row key and cell", "answer", lambda q: q.cell is not None),
    "every_page": ("Every page of the evidence", "every page", lambda q: bool(q.pages)),
    "some_page": ("Some page of the evidence", "some page", lambda q: bool(q.pages)),
}


class Scored:
    """The scores of all arms, by question.

    Args:
        scores: arm -> document -> scores.
        questions: all questions.
    """

    def __init__(self, scores: Scores, questions: Sequence[Question]) -> None:
        self.scores, self.questions = scores, questions

    def values(self, arm: str, mode: Mode, budget: str, measure: str, questions: Iterable[Question]) -> list[bool]:
        """An arm's scores on questions that the measure applies to, in their order."""
        place = MEASURES.index(measure)
        return [bool(self.scores[arm][q.pdf].found[q.id][mode][budget][place]) for q in questions]

    def rate(self, arm: str, mode: Mode, budget: str, measure: str, questions: Iterable[Question]) -> float | None:
        """Their mean; None without a question."""
        held = self.values(arm, mode, budget, measure, questions)
        return sum(held) / len(held) if held else None

    def better(self, arm: str, budget: str, measure: str, questions: Sequence[Question]) -> Mode:
        """The search mode under which an arm scores best; the first of them for a tie."""
        return max(MODES, key=lambda mode: self.rate(arm, mode, budget, measure, questions) or 0.0)

    def exists(self, arm: str, questions: Sequence[Question]) -> float | None:
        """The share of questions whose answer stands in one chunk: the ceiling for k = 1."""
        held = [found for q in questions if (found := self.scores[arm][q.pdf].exists.get(q.id)) is not None]
        return sum(held) / len(held) if held else None


def compare(scores: Scores, questions: Sequence[Question], contract: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Content of results.json: statements, tables, metrics; and `curves` for the plot.

    Args:
        scores: arm -> document -> scores.
        questions: all questions about these documents.
        contract: rows of `contract_row`.
    """
    held = Scored(scores, questions)
    groups = {name: [q for q in questions if pick(q)] for name, (_, _, pick) in GROUPS.items()}
    tables = [_budgets(held, name, groups[name]) for name in GROUPS if groups[name]]
    tables += [_page_kinds(held, groups["cells"])] if groups["cells"] else []
    statements: list[str] = []
    metrics: dict[str, float] = {}
    for name in ("all", "text", "human", "cells", "rows"):
        for alone in (None, PAPERS_MODE):
            if groups[name] and OURS in scores:
                table, said, numbers = _gains(held, name, groups[name], alone)
                tables.append(table)
                statements += said
                metrics |= numbers
        if groups[name] and PACKED in scores:
            table, said, numbers = _gains(held, name, groups[name], None, PACKED)
            tables.append(table)
            statements += said
            metrics |= numbers
    scorable = [q for q in questions if q.searchable]
    tables.append(_parts(held, "class", {c: [q for q in scorable if classify(q) == c] for c in CLASSES}))
    tables.append(_parts(held, "document", {d: [q for q in scorable if q.pdf == d] for d in {q.pdf for q in scorable}}))
    tables.append(_sizes(scores))
    tables.append(contract_table(contract))
    curves = {name: _curves(held, name, groups[name]) for name in ("text", "cells") if groups[name]}
    return {"metrics": metrics, "statements": statements, "tables": tables, "curves": curves}


def text_arms(names: Iterable[str]) -> list[str]:
    """Those arms that see only the text that pypdf extracts."""
    entries = read_index().of("arms")
    return [n for n in names if n in entries and entries[n].extra.get("reads") == "text"]


def _budgets(held: Scored, name: str, questions: Sequence[Question]) -> dict[str, Any]:
    title, measure, _ = GROUPS[name]
    rows: list[list[Any]] = []
    for arm in held.scores:
        for mode in MODES:
            rates = [held.rate(arm, mode, budget, measure, questions) for budget in BUDGETS]
            ceiling = held.exists(arm, questions) if name in ("text", "human", "cells") else None
            rows.append([arm, SEARCH[mode], *map(_rounded, rates), _rounded(ceiling)])
    columns = ["arm", "search", *BUDGETS, "exists in one chunk"]
    return {"title": f"{title}, {len(questions)} questions", "columns": columns, "rows": rows, "note": ""}


def _page_kinds(held: Scored, cells: Sequence[Question]) -> dict[str, Any]:
    kinds = {kind: [q for q in cells if q.cell and q.cell.page_kind == kind] for kind in PAGE_KINDS}
    rows: list[list[Any]] = []
    for arm in held.scores:
        mode = held.better(arm, MAIN, "strict", cells)
        row: list[Any] = [arm, SEARCH[mode]]
        for own in kinds.values():
            row += [_rounded(held.rate(arm, mode, MAIN, "strict", own)), _rounded(held.exists(arm, own))]
        rows.append(row)
    columns = ["arm", "search", *(f"{k}, {w}" for k, own in kinds.items() for w in (f"n = {len(own)}", "exists"))]
    note = "Strict, at 1,500 tokens, under the search mode that is best for the arm over all cells."
    return {"title": "Table cells by the kind of page", "columns": columns, "rows": rows, "note": note}


def _gains(
    held: Scored, name: str, questions: Sequence[Question], alone: Mode | None, ours: str = OURS
) -> tuple[dict[str, Any], list[str], dict[str, float]]:
    """Ours against each arm, under each arm's best search or all under one: table, sentences, metrics."""
    own_name = "ours" if ours == OURS else "ours, packed"
    title, measure, _ = GROUPS[name]
    modes = {arm: alone or held.better(arm, MAIN, measure, questions) for arm in held.scores}
    rates = {arm: held.rate(arm, modes[arm], MAIN, measure, questions) or 0.0 for arm in held.scores}
    own = held.values(ours, modes[ours], MAIN, measure, questions)
    rows: list[list[Any]] = []
    found = {}
    for arm in held.scores:
        if arm not in (OURS, PACKED):
            gain = found[arm] = difference(own, held.values(arm, modes[arm], MAIN, measure, questions))
            rows.append(
                [arm, SEARCH[modes[arm]], _rounded(rates[arm]), *map(_rounded, (gain.mean, gain.low, gain.high))]
            )
    key = f"{name}_{alone}" if alone else name
    metrics = {f"test/{key}/{arm}": rate for arm, rate in rates.items()}
    said = []
    where = f"{title}, at 1,500 tokens{', vector search alone' if alone else ''}"
    if rivals := [arm for arm in text_arms(found) if arm in found]:
        best = max(rivals, key=lambda arm: rates[arm])
        said.append(
            f"{where}: {own_name} {rates[ours]:.3f} ({SEARCH[modes[ours]]}), the best text chunker {best} "
            f"{rates[best]:.3f} ({SEARCH[modes[best]]}): {found[best]}."
        )
        metrics[f"test/{key}/{'gain' if ours == OURS else 'gain_packed'}"] = found[best].mean
    if "reader_fixed" in found:
        said.append(f"{where}: {own_name} minus our reader with fixed-size splits {found['reader_fixed']}.")
    choice = "All under one search" if alone else "Each arm under the search that is best for it on these questions"
    note = (
        f"Paired over questions, 95 % bootstrap interval. {choice}; the best text chunker is told by them too. "
        "No interval allows for such a choice."
    )
    columns = ["arm", "search", f"rate at {MAIN}", "ours minus it", "low", "high"]
    return {"title": f"{own_name.capitalize()} ({SEARCH[modes[ours]]}, {rates[ours]:.3f}) against each arm: {title}, "
            f"{'vector search alone, ' if alone else ''}{len(questions)} questions", "columns": columns,
            "rows": rows, "note": note}, said, metrics  # fmt: skip


def _parts(held: Scored, by: str, parts: Mapping[str, Sequence[Question]]) -> dict[str, Any]:
    names = [p for p in (parts if by == "class" else sorted(parts)) if parts[p]]
    everything = [q for p in names for q in parts[p]]
    rows: list[list[Any]] = []
    modes = {arm: held.better(arm, MAIN, "answer", everything) for arm in held.scores}
    for name in names:
        rates = [held.rate(arm, modes[arm], MAIN, "answer", parts[name]) for arm in held.scores]
        rows.append([name, len(parts[name]), *map(_rounded, rates)])
    columns = [by, "questions", *(f"{arm} ({SEARCH[modes[arm]]})" for arm in held.scores)]
    note = "Answer strings, or a cell's row, in 1,500 retrieved tokens; each arm under its best search mode."
    return {"title": f"By {by}", "columns": columns, "rows": rows, "note": note}


def _sizes(scores: Scores) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for arm, documents in scores.items():
        pieces = sum(d.num_pieces for d in documents.values())
        total = sum(d.num_tokens for d in documents.values())
        rows.append([arm, pieces, round(total / pieces, 1) if pieces else None, total])
    columns = ["arm", "chunks", "tokens a chunk", "tokens"]
    return {"title": "Chunks of each arm", "columns": columns, "rows": rows, "note": ""}


def _curves(held: Scored, name: str, questions: Sequence[Question]) -> dict[str, Any]:
    title, measure, _ = GROUPS[name]
    lines = {}
    for arm in held.scores:
        mode = held.better(arm, MAIN, measure, questions)
        rates = [held.rate(arm, mode, budget, measure, questions) for budget in BUDGETS[: len(TOKEN_BUDGETS)]]
        lines[f"{arm} ({SEARCH[mode]})"] = rates
    return {"title": f"{title}\n{len(questions)} questions", "tokens": list(TOKEN_BUDGETS), "lines": lines}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
