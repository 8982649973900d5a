"""What a bank's comparison says: a table over tasks, means with bootstrap intervals, differences taken in pairs.

Axis legend: M method, D draw, U task, S bootstrap sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

SAMPLES = 2000
LEAST_GAIN = 0.05  # of an own LoRA over the base model, below which a share of it says nothing
LABELS = ("own LoRA", "solved examples")  # ends of the methods that need labels
Scores = Mapping[str, Mapping[str, Sequence[float]]]


def intervals(scores: Scores, tasks: Sequence[str], against: str, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Mean over tasks of each method with its 95 % interval, and of its difference to `against`, in pairs.

    A bootstrap sample takes tasks with replacement and, for each of them, draws with replacement, the same tasks for
    all methods.

    Args:
        scores: method -> task -> one score for each draw of prompts (one score where nothing is drawn).
        tasks: the tasks to average over.
        against: the method to compare with.
        seed: of the samples.

    Returns:
        method -> {"mean", "low", "high", "difference", "difference_low", "difference_high"}.
    """
    rng = numpy.random.default_rng(seed)
    chosen_SU = rng.integers(len(tasks), size=(SAMPLES, len(tasks)))
    sampled, means = {}, {}
    for method, by_task in scores.items():
        drawn_US = []
        for task in tasks:
            values = numpy.asarray(by_task[task], dtype=float)
            picks = rng.integers(len(values), size=(SAMPLES, len(values)))
            drawn_US.append(values[picks].mean(1))
        sampled[method] = numpy.take_along_axis(numpy.stack(drawn_US, 1), chosen_SU, axis=1).mean(1)
        means[method] = float(numpy.mean([numpy.mean(by_task[task]) for task in tasks]))
    found = {}
    for method, sample_S in sampled.items():
        low, high = numpy.percentile(sample_S, [2.5, 97.5])
        lower, higher = numpy.percentile(sample_S - sampled[against], [2.5, 97.5])
        found[method] = {
            "mean": means[method], "low": float(low), "high": float(high),
            "difference": means[method] - means[against], "difference_low": float(lower),
            "difference_high": float(higher),
        }  # fmt: skip
    return found


def bank_results(
    choice: Scores, exact: Scores, tasks: Sequence[str], val: Sequence[str], variants: Sequence[str], kinds: Any
) -> dict[str, Any]:
    """Content of results.json.

    Args:
        choice: method -> task -> scores; likelihood of the choices, exact match for tasks without choices.
        exact: the same, exact match for all.
        tasks: test tasks.
        val: validation tasks, which choose the best variant and are reported apart; without any, none is chosen.
        variants: the methods that are generators of ours; the first is the published one.
        kinds: task -> kind.
    """
    by_val = {v: float(numpy.mean([numpy.mean(choice[v][t]) for t in val])) for v in variants} if val else {}
    best = max(by_val, key=lambda v: by_val[v]) if by_val else variants[0]
    found = intervals(choice, tasks, best)
    found_exact = intervals(exact, tasks, best)
    rows = [
        [
            m, r["mean"], f"{r['low']:.3f} to {r['high']:.3f}", r["difference"],
            f"{r['difference_low']:+.3f} to {r['difference_high']:+.3f}", found_exact[m]["mean"],
        ]
        for m, r in found.items()
    ]  # fmt: skip
    columns = ["method", "score", "95 % interval", f"difference to {best}", "95 % interval of it", "exact match"]
    per_task = [
        [t, kinds[t], *(float(numpy.mean(choice[m][t])) for m in choice)] for t in [*tasks, *val]
    ]  # fmt: skip
    ours = tuple(f"{v}," for v in variants)  # their rows on fewer or other prompts
    rivals = [m for m in found if m not in variants and not m.endswith(LABELS) and not m.startswith(("best ", *ours))]
    rival = max(rivals, key=lambda m: found[m]["mean"])
    gap = intervals(choice, tasks, rival)[best]
    ahead = "ahead of" if gap["difference_low"] > 0 else "behind" if gap["difference_high"] < 0 else "level with"
    who = f"the best of our variants (chosen by {', '.join(val)})" if val else "the first of our variants"
    statements = [
        f"Over {len(tasks)} held-out tasks of {len({kinds[t] for t in tasks})} kinds {who} "
        f"is `{best}` with {gap['mean']:.3f}: {ahead} the best control without labels, {rival} "
        f"({found[rival]['mean']:.3f}), by {gap['difference']:+.3f} ({gap['difference_low']:+.3f} to "
        f"{gap['difference_high']:+.3f})."
    ]
    published = variants[0]
    for other in ("base", "soup of all LoRAs", f"{published}, mismatched prompts", "mean of the training LoRAs"):
        if other in found:
            g = intervals(choice, tasks, other)[published]
            statements.append(
                f"The published method `{published}` has {g['mean']:.3f}, {other} {found[other]['mean']:.3f}: "
                f"{g['difference']:+.3f} ({g['difference_low']:+.3f} to {g['difference_high']:+.3f})."
            )
    note = (
        "Score: likelihood of the choices, exact match where a task has none. Intervals: bootstrap over tasks and "
        f"prompt draws, {SAMPLES} samples; differences in pairs. The second table ends with the validation tasks."
    )
    return {
        "metrics": {f"test/choice/{m.replace(' ', '_').replace(',', '')}": r["mean"] for m, r in found.items()},
        "statements": statements,
        "tables": [
            {"title": f"{len(tasks)} held-out tasks", "columns": columns, "rows": rows, "note": note},
            {"title": "Task by task", "columns": ["task", "kind", *choice], "rows": per_task, "note": ""},
        ],
    }


def given_back(known: Mapping[str, Mapping[str, float]], variants: Sequence[str]) -> dict[str, Any]:
    """What the variants give back of their training tasks' LoRAs, from prompts that they never saw.

    Args:
        known: training task -> {"base", "own LoRA", each variant} -> score.
        variants: names of the variants.

    Returns:
        Statements, tables and metrics to add to the results; none if nothing was scored.
    """
    gaining = [t for t, s in known.items() if s["own LoRA"] - s["base"] > LEAST_GAIN]
    if not gaining:
        return {"statements": [], "tables": [], "metrics": {}}
    shares = {
        v: float(
            numpy.mean([(known[t][v] - known[t]["base"]) / (known[t]["own LoRA"] - known[t]["base"]) for t in gaining])
        )
        for v in variants
    }
    told = ", ".join(f"`{v}` {share:.0%}" for v, share in shares.items())
    text = (
        f"Of the gain of its training tasks' LoRAs (mean over the {len(gaining)} of {len(known)} that gain more than "
        f"{LEAST_GAIN}) a variant gives back, from prompts that it never saw: {told}."
    )
    columns = ["training task", "base", "own LoRA", *variants]
    rows = [[t, *(s[m] for m in columns[1:])] for t, s in known.items()]
    table = {"title": "Training tasks, prompts never seen", "columns": columns, "rows": rows, "note": ""}
    return {"statements": [text], "tables": [table], "metrics": {f"test/given_back/{v}": s for v, s in shares.items()}}


def coverage_told(choice: Scores, cosines: Mapping[str, float], method: str, seed: int = 0) -> dict[str, Any]:
    """How well coverage (the cosine with the nearest training task) predicts what a method gains over the base.

    Args:
        choice: method -> task -> scores, as for `bank_results`.
        cosines: held-out task -> cosine.
        method: whose gain.
        seed: of the bootstrap over tasks.

    Returns:
        A statement and a metric, Spearman's rank correlation; none for fewer than three tasks.
    """
    from scipy.stats import spearmanr

    tasks = list(cosines)
    if len(tasks) < 3:
        return {"statements": [], "metrics": {}}
    cosine_U = numpy.array([cosines[t] for t in tasks])
    gain_U = numpy.array([numpy.mean(choice[method][t]) - numpy.mean(choice["base"][t]) for t in tasks])
    rng = numpy.random.default_rng(seed)
    drawn_SU = rng.integers(len(tasks), size=(SAMPLES, len(tasks)))
    varied = [row_U for row_U in drawn_SU if numpy.ptp(cosine_U[row_U]) > 0 and numpy.ptp(gain_U[row_U]) > 0]
    if not varied or numpy.ptp(gain_U) == 0:
        return {"statements": [], "metrics": {}}
    found = float(spearmanr(cosine_U, gain_U).statistic)
    low, high = numpy.percentile([spearmanr(cosine_U[row_U], gain_U[row_U]).statistic for row_U in varied], [2.5, 97.5])
    text = (
        f"Coverage against the gain of `{method}` over the base model on {len(tasks)} held-out tasks: rank correlation "
        f"{found:+.2f} ({low:+.2f} to {high:+.2f})."
    )
    return {"statements": [text], "metrics": {"test/coverage_rank_correlation": found}}
