"""`fulgurite dnd evaluate`: the generator on a task that it has not seen, beside all controls."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

CHOICE_HINT = "Answer with the word alone."


@COMMANDS.register("dnd evaluate", paper="2506.16406")
def evaluate(
    generator: Path, store: Path, held_out: str, out: Path, num_test: int = 200, draws: int = 3, shots: int = 4,
    hint: str = CHOICE_HINT, seed: int = 0,
) -> None:  # fmt: skip
    """Score base model, controls, generator and own LoRA on a held-out task; go on where an earlier call stopped.

    Args:
        generator: folder of a trained generator.
        store: folder of snapshots, those of the held-out task included.
        held_out: the task's name in the store; the generator must not have been trained on it.
        out: folder for the scores and results.json.
        num_test: test examples.
        draws: prompt draws of the generator.
        shots: solved examples for in-context learning.
        hint: sentence on the answer's format for the base model.
        seed: seed of the draws.
    """
    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.tasks import load_task
    from .adapted import AdaptedModel
    from .controls import conditions
    from .figure import draw_scores
    from .generator import TrainedGenerator
    from .scoring import score

    trained, snapshots = TrainedGenerator.load(generator), SnapshotStore(store)
    snapshots.steps(held_out)
    if held_out in trained.tasks:
        raise UserError(
            f"'{held_out}' is a training task of {generator}: not held out\n"
            f"Its training tasks: {', '.join(trained.tasks)}."
        )
    entries = {n: snapshots.manifest["tasks"][n] for n in [held_out, *trained.tasks]}
    tasks = {n: load_task(e["spec"], limit=e["limit"], seed=e["seed"]) for n, e in entries.items()}
    target = load_task(entries[held_out]["spec"], limit=num_test, seed=entries[held_out]["seed"])
    training = {n: tasks[n] for n in trained.tasks}
    encoder = trained.encoder()
    rows = list(
        conditions(
            trained, snapshots, encoder, tasks[held_out], training,
            own=held_out, draws=draws, shots=shots, hint=hint, seed=seed,
        )
    )  # fmt: skip
    adapted = AdaptedModel(trained.meta["base_model"], trained.meta["adapter_config"])
    scores: dict[str, dict[str, Any]] = {}
    bar = track(rows, "scoring", console=Console(stderr=True), disable=not Console(stderr=True).is_terminal)
    for row in bar:
        file = out / "scores" / f"{row.name.replace('/', '-').replace(':', '-')}.json"
        if not file.is_file():
            options: dict[str, Any] = {"prefix": row.prefix, "hint": row.hint}
            if row.adapter is None:
                with adapted.without_adapter():
                    found = score(adapted.peft, adapted.tokenizer, trained.text, target.test, **options)
            else:
                adapted.load(row.adapter())
                found = score(adapted.peft, adapted.tokenizer, trained.text, target.test, **options)
            write_json(file, {"schema_version": 1, **dataclasses.asdict(found)})
        scores[row.name] = json.loads(file.read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row.name)
    results = summary(held_out, groups, scores, trained, encoder, tasks[held_out], target.test)
    title = f"held-out task '{held_out}', {len(target.test)} test examples, {trained.meta['base_model']}"
    draw_scores(results["tables"][0]["rows"], title, len(target.test), out / "scores.png")
    write_json(out / "results.json", {**results, "figures": ["scores.png"]})


def summary(
    held_out: str,
    groups: dict[str, list[str]],
    scores: dict[str, dict[str, Any]],
    trained: Any,
    encoder: Any,
    task: Any,
    examples: Any,
) -> dict[str, Any]:
    """results.json: one row a group (mean over its members, lowest and highest beside it), and the verdict in words."""
    rows, metrics = [], {}
    for group, names in groups.items():
        exact = [scores[n]["exact_match"] for n in names]
        choice = [scores[n]["choice"] for n in names if scores[n]["choice"] is not None]
        spread = f"{min(choice or exact):.3f} to {max(choice or exact):.3f}" if len(names) > 1 else ""
        rows.append([group, len(names), _mean(choice), _mean(exact), spread])
        key = group.partition(" (")[0].replace(" ", "_").replace(",", "")
        metrics[f"test/exact_match/{key}"] = _mean(exact)
        if choice:
            metrics[f"test/choice/{key}"] = _mean(choice)
        if group == "LoRA of another task":
            best = max(names, key=lambda n: scores[n]["choice"] if choice else scores[n]["exact_match"])
            rows.append(
                [
                    f"best of them (chosen on the test: {best.removeprefix('lora_')})",
                    1,
                    scores[best]["choice"],
                    scores[best]["exact_match"],
                    "",
                ]
            )
    for rule, pick in (("shortest", min), ("longest", max)):
        if examples[0].choices:
            guessed = sum(pick(e.choices, key=len) == e.response for e in examples) / len(examples)
            rows.append([f"blind: always the {rule} choice", 1, guessed, None, ""])
    count = len(examples)
    nearest, cosine, floor = trained.coverage(encoder.embed([e.prompt for e in task.train][:256]))
    inside = "inside" if cosine >= floor else "outside"
    chance = 1 / len(task.train[0].choices) if task.train[0].choices else None
    return {
        "schema_version": 1,
        "metrics": {k: v for k, v in metrics.items() if v is not None},
        "statements": [
            verdict(held_out, rows, count),
            f"Coverage: the prompts lie nearest to `{nearest}` (cosine {cosine:.2f}); "
            f"{inside} the training tasks' own range (from {floor:.2f}).",
        ],
        "tables": [
            {
                "title": f"Held-out task `{held_out}`, {count} test examples",
                "columns": ["adapter", "rows", "choice accuracy", "exact match", "lowest to highest"],
                "rows": rows,
                "note": (f"Chance {chance:.2f} by choice. " if chance else "")
                + f"One standard error of a single row is at most {0.5 / count**0.5:.3f}. The generator saw prompts of "
                "the task's train split, without labels; test examples chose nothing, except in the row that says so.",
            }
        ],
    }


def verdict(held_out: str, rows: list[list[Any]], count: int) -> str:
    """One sentence: is the generator ahead of every control that needs no labels, by more than two standard errors?"""
    use = 2 if rows[0][2] is not None else 3
    own = {r[0]: r[use] for r in rows}
    generator = own["generator"]
    labelled = ("generator", "own LoRA (trained on its labels)")
    rivals = {
        k: v for k, v in own.items() if k not in labelled and "solved" not in k and "best of" not in k and v is not None
    }
    rival = max(rivals, key=lambda k: rivals[k])
    margin = generator - rivals[rival]
    error = (generator * (1 - generator) / count + rivals[rival] * (1 - rivals[rival]) / count) ** 0.5
    what = "ahead of" if margin > 0 else "behind"
    if abs(margin) <= 2 * error:
        what = "level (within two standard errors) with"
    measure = "choice accuracy" if use == 2 else "exact match"
    first = f"On `{held_out}` the generator's {measure} is {generator:.3f}: "
    return first + f"{what} the best control without labels, {rival} ({rivals[rival]:.3f})."


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
