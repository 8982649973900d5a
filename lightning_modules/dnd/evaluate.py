"""`fulgurite dnd evaluate`: the generator on a task that it has not seen, beside all controls."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...datamodules.dnd.examples import Example
    from .adapted import AdaptedModel
    from .controls import Condition
    from .generator import TrainedGenerator

HINT = "Answer with the word alone."


@COMMANDS.register("dnd evaluate", paper="2506.16406")
def evaluate(
    checkpoint: Path, store: Path, held_out: str, out: Path, num_test: int = 200, num_recovery: int = 50,
    draws: int = 3, shots: int = 4, hint: str = HINT, seed: int = 0,
) -> None:  # fmt: skip
    """Score base model, controls, generator and own LoRA on a held-out task; go on where an earlier call stopped.

    Args:
        checkpoint: folder of a trained generator, `<run>/generator/generator`.
        store: folder of snapshots, those of the held-out task included.
        held_out: the task's name in the store; the generator must not have been trained on it.
        out: folder for the scores and results.json.
        num_test: test examples of the held-out task.
        num_recovery: test examples of each training task.
        draws: prompt draws of the generator.
        shots: solved examples for in-context learning.
        hint: sentence on the answer's format for the base model.
        seed: seed of the draws.
    """
    import torch

    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.tasks import load_task
    from .adapted import AdaptedModel
    from .comparison import compare, recovered
    from .controls import COVERAGE_PROMPTS, conditions, recovery
    from .figure import draw_recovery, draw_scores
    from .generator import TrainedGenerator
    from .progress import told

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained, snapshots = TrainedGenerator.load(checkpoint).to(device), SnapshotStore(store)
    snapshots.steps(held_out)
    if held_out in trained.tasks:
        raise UserError(
            f"'{held_out}' is a training task of {checkpoint}: not held out\n"
            f"Its training tasks: {', '.join(trained.tasks)}."
        )
    entries = {n: snapshots.manifest["tasks"][n] for n in [held_out, *trained.tasks]}
    tasks = {n: load_task(e["spec"], limit=e["limit"], seed=e["seed"]) for n, e in entries.items()}
    scored = load_task(entries[held_out]["spec"], limit=num_test, seed=entries[held_out]["seed"]).test
    encoder = trained.encoder()
    rows = list(
        conditions(
            trained, snapshots, encoder, tasks[held_out], {n: tasks[n] for n in trained.tasks},
            own=held_out, draws=draws, shots=shots, hint=hint, seed=seed,
        )
    )  # fmt: skip
    adapted = AdaptedModel(trained.meta["base_model"], trained.meta["adapter_config"]).to(device)
    screen = Console(stderr=True)
    scores: dict[str, dict[str, Any]] = {}
    for row in told(rows, f"adapters on '{held_out}'", screen):
        scores[row.name] = _score_once(row, adapted, trained, scored, out / "scores")
    given_back: dict[str, dict[str, dict[str, Any]]] = {}
    for name in told(trained.tasks, "training tasks", screen):
        examples = tasks[name].test[:num_recovery]
        three = recovery(trained, snapshots, encoder, name, tasks[name], seed)
        found = [_score_once(row, adapted, trained, examples, out / "scores") for row in three]
        given_back[name] = dict(zip(("base", "own", "generator"), found, strict=True))
    coverage = trained.coverage(encoder.embed([e.prompt for e in tasks[held_out].train][:COVERAGE_PROMPTS]))
    results = compare(held_out, rows, scores, scored, coverage)
    back = recovered(given_back)
    for part in ("statements", "tables"):
        results[part] += back[part]
    results["metrics"] |= back["metrics"]
    title = f"held-out task '{held_out}', {len(scored)} test examples, {trained.meta['base_model']}"
    draw_scores(results["tables"][0]["rows"], title, len(scored), out / "scores.png")
    title = "training tasks, adapters generated from prompts that were never seen"
    counts = [len(tasks[name].test[:num_recovery]) for name in trained.tasks]
    draw_recovery(back["tables"][0]["rows"], title, counts, out / "recovery.png")
    write_json(out / "results.json", {"schema_version": 1, **results, "figures": ["recovery.png", "scores.png"]})


def _score_once(
    row: Condition, adapted: AdaptedModel, trained: TrainedGenerator, scored: Sequence[Example], folder: Path
) -> dict[str, Any]:
    """A row's score: the one on disk if it was made from the same examples, adapter and settings, else a new one."""
    from .scoring import score

    state = row.adapter() if row.adapter else {}
    work = _digest(json.dumps([dataclasses.astuple(e) for e in scored]), trained.meta["base_model"], str(trained.text))
    weights = "".join(f"{k}{_digest(v.contiguous().numpy().tobytes())}" for k, v in sorted(state.items()))
    digest = _digest(work, weights, row.hint, json.dumps([dataclasses.astuple(e) for e in row.shots]))
    file = folder / f"{row.name.replace('/', '-').replace(':', '-')}-{digest[:12]}.json"
    kept = _read_score(file)
    if kept is None:
        options: dict[str, Any] = {"shots": row.shots, "hint": row.hint}
        if state:
            adapted.load(state)
            found = score(adapted.peft, adapted.tokenizer, trained.text, scored, **options)
        else:
            with adapted.without_adapter():
                found = score(adapted.peft, adapted.tokenizer, trained.text, scored, **options)
        kept = {"schema_version": 1, **dataclasses.asdict(found)}
        write_json(file, kept)
    return kept


def _read_score(file: Path) -> dict[str, Any] | None:
    """A score on disk; None if there is none or it is damaged."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept if {"choice", "exact_match"} <= kept.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _digest(*parts: str | bytes) -> str:
    seen = hashlib.sha256()
    for part in parts:
        seen.update(part if isinstance(part, bytes) else part.encode())
    return seen.hexdigest()
