"""Scores of several answerers as the content of results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..rewards import skill
from ..scoring import Score, by_family, interval

Scores = Mapping[str, Sequence[Score]]
"""Answerer -> scores, of the same records in the same order."""
CONSTANT = "constant"


def errors_px(scores: Sequence[Score], constant: Sequence[Score]) -> list[float]:
    """Level 3 errors; an answer that can't be read is as far off as the constant's."""
    found = []
    for one, blind in zip(scores, constant, strict=True):
        assert blind.error_px is not None, "the constant can always be read"
        found.append(blind.error_px if one.error_px is None else one.error_px)
    return found


def report(splits: Mapping[str, Scores]) -> dict[str, Any]:
    """Metrics, tables and sentences.

    Args:
        splits: split -> scores of each answerer; the first is the model, and `constant` is among them.
    """
    metrics: dict[str, float] = {}
    statements: list[str] = []
    tables = []
    for split, scores in splits.items():
        levels = sorted({one.level for one in next(iter(scores.values()))})
        for level in levels:
            of_level = {name: [one for one in found if one.level == level] for name, found in scores.items()}
            rows = [_row(name, found, of_level[CONSTANT]) for name, found in of_level.items()]
            columns = ["who answers", "records", "accuracy", "95 % of draws", "format", "RMSE px", "skill"]
            tables.append({"title": f"Level {level}, {split}", "columns": columns, "rows": rows, "note": NOTES[level]})
            for name, row in zip(of_level, rows, strict=True):
                metrics[f"{split}/l{level}/{name}"] = row[2] if level != 3 else row[6]
            statements.append(_sentence(level, split, rows))
        tables.append(_families(split, scores))
    return {"schema_version": 1, "metrics": metrics, "statements": statements, "tables": tables}


NOTES = {
    1: "Accuracy: the right set of types.",
    2: "Accuracy: the plan can be carried out, reaches the goal, and is no longer than the record's own.",
    3: "The released accuracy hardly falls with the error; skill is 1 - RMSE / RMSE of the constant.",
}


def _row(name: str, scores: Sequence[Score], constant: Sequence[Score]) -> list[Any]:
    accuracy = [one.accuracy for one in scores]
    low, high = interval(accuracy)
    row: list[Any] = [
        name, len(scores), _mean(accuracy), f"{low:.3f} to {high:.3f}", _mean([one.format for one in scores])
    ]  # fmt: skip
    if scores[0].level != 3:
        return [*row, None, None]
    error, blind = (_mean(errors_px(s, constant)) for s in (scores, constant))
    return [*row, error, skill(error, blind)]


def _sentence(level: int, split: str, rows: list[list[Any]]) -> str:
    said = ", ".join(f"{row[0]} {row[6]:.2f}" if level == 3 else f"{row[0]} {row[2]:.1%}" for row in rows)
    return f"Level {level}, {split}, {rows[0][1]} records, {'skill' if level == 3 else 'right'}: {said}."


def _families(split: str, scores: Scores) -> dict[str, Any]:
    grouped = {name: by_family(found) for name, found in scores.items()}
    first = next(iter(grouped.values()))
    rows = []
    for (level, family), found in first.items():
        low, high = interval([one.accuracy for one in found])
        means = [_mean([one.accuracy for one in grouped[name][level, family]]) for name in grouped]
        rows.append([level, family, len(found), f"{low:.2f} to {high:.2f}", *means])
    columns = ["level", "sub-family", "records", "95 % of draws, first", *grouped]
    note = f"Level 3: {NOTES[3]}" if any(level == 3 for level, _ in first) else ""
    return {"title": f"Accuracy by sub-family, {split}", "columns": columns, "rows": rows, "note": note}


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
