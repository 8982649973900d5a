"""The evaluation's table, and what it says in words: no better and no worse than the numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ...datamodules.dnd.examples import Example
from .controls import GENERATOR, MISMATCHED, OTHER_TASKS, Condition

MEASURES = {"choice": "choice accuracy", "exact_match": "exact match"}
Scores = Mapping[str, Mapping[str, Any]]


def compare(
    held_out: str,
    rows: Sequence[Condition],
    scores: Scores,
    scored: Sequence[Example],
    coverage: tuple[str, float, float],
) -> dict[str, Any]:
    """Content of results.json: one row a group (mean over its members), metrics, and sentences for each measure.

    Args:
        held_out: name of the task.
        rows: all conditions.
        scores: condition's name -> {"choice", "exact_match"}.
        scored: the test examples.
        coverage: as `TrainedGenerator.coverage` gives it.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row.name)
    table: list[list[Any]] = []
    metrics: dict[str, float] = {}
    for group, names in groups.items():
        means = {m: _mean([scores[n][m] for n in names]) for m in MEASURES}
        spread = [scores[n]["choice" if means["choice"] is not None else "exact_match"] for n in names]
        between = f"{min(spread):.3f} to {max(spread):.3f}" if len(names) > 1 else ""
        table.append([group, len(names), means["choice"], means["exact_match"], between])
        key = group.partition(" (")[0].replace(" ", "_").replace(",", "")
        metrics |= {f"test/{m}/{key}": v for m, v in means.items() if v is not None}
        if group == OTHER_TASKS:
            best = {m: _best(scores, names, m) for m in MEASURES}
            table.append(["best of them, chosen on the test", 1, best["choice"], best["exact_match"], ""])
    blind = {rule: _blind(scored, pick) for rule, pick in (("shortest", min), ("longest", max))}
    table += [
        [f"blind: always the {rule} choice", 1, value, None, ""] for rule, value in blind.items() if value is not None
    ]
    nearest, cosine, floor = coverage
    where = "inside" if cosine >= floor else "outside"
    sentences = [s for m in MEASURES if (s := verdict(held_out, rows, scores, m, len(scored)))]
    sentences.append(
        f"Coverage: the prompts lie nearest to `{nearest}` (cosine {cosine:.2f}); {where} the training tasks' own "
        f"range (from {floor:.2f})."
    )
    note = (
        f"One standard error of a single row is at most {0.5 / len(scored) ** 0.5:.3f}. The generator saw prompts of "
        "the task's train split, without labels; test examples chose nothing, except in the row that says so."
    )
    if blind["shortest"] is not None:
        note += " Likelihood is summed over a choice's tokens, so a model that knows nothing follows the blind rows."
    columns = ["adapter", "rows", "choice accuracy", "exact match", "lowest to highest"]
    title = f"Held-out task `{held_out}`, {len(scored)} test examples"
    return {
        "metrics": metrics,
        "statements": sentences,
        "tables": [{"title": title, "columns": columns, "rows": table, "note": note}],
    }


def recovered(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """A table of what the generator gives back of its training tasks' LoRAs, and the share of their gain in words.

    Args:
        scores: task -> {"base", "own", "generator"} -> score.
    """
    rows, gains = [], []
    for task, found in scores.items():
        base, own, made = (found[k] for k in ("base", "own", "generator"))
        rows.append([task, *(f[m] for m in MEASURES for f in (base, own, made))])
        if own["exact_match"] > base["exact_match"]:
            gain = own["exact_match"] - base["exact_match"]
            gains.append((made["exact_match"] - base["exact_match"]) / gain)
    columns = ["task", *(f"{who}, {name}" for name in ("choice", "exact") for who in ("base", "own LoRA", "generator"))]
    table = {
        "title": "Training tasks: test examples, the generator fed with prompts that it never saw",
        "columns": columns,
        "rows": rows,
        "note": "",
    }
    if not gains:
        text = "No training task's own LoRA is ahead of the base model by exact match: there is no gain to give back."
        return {"statements": [text], "tables": [table], "metrics": {}}
    mean = sum(gains) / len(gains)
    text = (
        f"Of its training tasks' LoRAs the generator gives back {mean:.0%} of the gain in exact match (mean over the "
        f"{len(gains)} of {len(rows)} tasks whose own LoRA gains)."
    )
    return {"statements": [text], "tables": [table], "metrics": {"test/recovered_gain": mean}}


def verdict(held_out: str, rows: Sequence[Condition], scores: Scores, measure: str, count: int) -> str | None:
    """One measure in words: against the best group that needs no labels, and whether the prompts mattered.

    Differences within two standard errors (of two independent shares of `count` examples) count as none.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if not row.uses_labels and scores[row.name][measure] is not None:
            values[row.group].append(scores[row.name][measure])
    means = {group: sum(v) / len(v) for group, v in values.items()}
    if GENERATOR not in means:
        return None
    own = means[GENERATOR]
    rival = max((g for g in means if g not in (GENERATOR, MISMATCHED)), key=lambda g: means[g])
    text = (
        f"On `{held_out}` the generator's {MEASURES[measure]} is {own:.3f}: {_compared(own, means[rival], count)} the "
        f"best control without labels ({rival}, {means[rival]:.3f})"
    )
    if MISMATCHED in means:
        text += (
            f" and {_compared(own, means[MISMATCHED], count)} itself on other tasks' prompts ({means[MISMATCHED]:.3f})"
        )
    return text + "."


def _compared(value: float, other: float, count: int) -> str:
    error = ((value * (1 - value) + other * (1 - other)) / count) ** 0.5
    if abs(value - other) <= 2 * error:
        return "level (within two standard errors) with"
    return "ahead of" if value > other else "behind"


def _blind(scored: Sequence[Example], pick: Any) -> float | None:
    if not all(e.choices for e in scored):
        return None
    return sum(pick(e.choices, key=len) == e.response for e in scored) / len(scored)


def _best(scores: Scores, names: Sequence[str], measure: str) -> float | None:
    found = [scores[n][measure] for n in names if scores[n][measure] is not None]
    return max(found) if found else None


def _mean(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return sum(found) / len(found) if found else None
