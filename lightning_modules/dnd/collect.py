"""`fulgurite dnd collect`: the LoRAs of a whole task bank in one process, all adapters in one forward pass."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.token_rows import RowStream

SEVEN_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"]


@COMMANDS.register("dnd collect", paper="2506.16406")
def collect(
    out: Path, bank: Path | None = None, named: list[str] | None = None, tasks: list[str] | None = None,
    base_model: str = "smollm2-135m-instruct", rank: int = 8, layers: list[int] | None = None, steps: int = 150,
    num_snapshots: int = 10, batch_size: int = 32, lr: float = 1e-3, seeds: list[int] | None = None,
    limit: int | None = None, max_length: int = 160, tokens_at_once: int = 32768, init_seed: int = 0,
    share: str = "1/1",
) -> None:  # fmt: skip
    """Fine-tune one LoRA a task, many at once, and keep snapshots; go on where an earlier call stopped.

    Args:
        out: the snapshot store: manifest.json (the index) and one safetensors file a snapshot.
        bank: folder of NAME.train.jsonl and NAME.test.jsonl, plain or as .xz.
        named: tasks by spec beside those (`fulgurite dnd tasks`).
        tasks: only these of them; default all.
        base_model: model name.
        rank: LoRA rank; even.
        layers: adapt only these layers; default all.
        steps: optimiser steps of each LoRA.
        num_snapshots: snapshots of each, one at each of the last steps.
        batch_size: rows a step and LoRA.
        lr: learning rate.
        seeds: seeds of the rows' order; each makes a LoRA of its own, all from one initialisation.
        limit: at most so many examples of each split.
        max_length: text tokens of a row.
        tokens_at_once: text tokens of a step over all LoRAs: what the memory holds.
        init_seed: seed of the shared initialisation.
        share: `2/8` makes every eighth LoRA from the second on: one such call for each worker of a cluster, all into
            one store on a disk that they share. The last to end writes results.json.
    """
    seeds = [0] if seeds is None else seeds
    if rank < 2 or rank % 2:
        raise UserError(f"--rank is {rank}: the weight tokens need an even rank of at least 2")
    if not 0 < num_snapshots <= steps:
        raise UserError(f"--num_snapshots is {num_snapshots}, of {steps} steps")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError("--seeds: give at least one, each once")
    first, workers = _share(share)
    import torch

    from ...datamodules.dnd.bank import TaskBank
    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.text import TextFormat
    from ...datamodules.dnd.token_rows import RowStream, token_rows
    from .batched_lora import BatchedLoRA
    from .bulk import BulkSettings, train_together

    found = TaskBank(bank, named or [])
    names = found.names if tasks is None else tasks
    settings = BulkSettings(rank, steps, num_snapshots, lr, init_seed=init_seed)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0,
        "target_modules": SEVEN_LINEARS, "layers_to_transform": layers, "base_model_name_or_path": base_model,
    }  # fmt: skip
    form, store, console = TextFormat(), SnapshotStore(out), Console(stderr=True, highlight=False, soft_wrap=True)
    entries: dict[str, dict[str, Any]] = {
        entry_name(name, seed, seeds): {
            "spec": found.spec(name), "task": name, "kind": found.kind(name), "limit": limit, "seed": 0,
            "order_seed": seed, "steps": list(range(steps - num_snapshots + 1, steps + 1)),
            "trained": {"steps": steps, "batch_size": batch_size, "lr": lr, "max_length": max_length,
                        "init_seed": init_seed},
        }
        for seed in seeds for name in names
    }  # fmt: skip
    _open_store(store, base_model, config, form, entries)
    own = list(entries)[first::workers]
    missing = {name: entries[name] for name in own if not store.complete(name)}
    if missing:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = BatchedLoRA(base_model, config, device)
        form.end_id(model.tokenizer)
        examples = {entry["task"]: found.load(entry["task"], limit=limit).train for entry in missing.values()}
        rows = {name: token_rows(model.tokenizer, form, e, max_length) for name, e in examples.items()}
        streams = {n: RowStream(rows[e["task"]], batch_size, int(e["order_seed"])) for n, e in missing.items()}
        groups = list(_groups(streams, tokens_at_once))
        for place, group in enumerate(groups, start=1):
            begun = time.monotonic()

            def say(step: int, losses: list[float], place: int = place, begun: float = begun) -> None:
                console.print(
                    f"group {place} of {len(groups)}: step {step} of {steps}, mean loss "
                    f"{sum(losses) / len(losses):.3f}, {time.monotonic() - begun:.0f} s"
                )

            def save(k: int, step: int, state: Any, group: Sequence[str] = group) -> None:
                store.save(group[k], step, state)

            named_by = hashlib.sha256(json.dumps(group).encode()).hexdigest()[:16]  # names may hold slashes
            resume_point = out / f".group-{named_by}.safetensors"
            console.print(f"group {place} of {len(groups)}: {', '.join(group)}")
            train_together(model, [streams[n] for n in group], settings, resume_point, save, say)
    waiting = [name for name in entries if not store.complete(name)]
    if waiting:
        console.print(f"share {share} is done; {len(waiting)} LoRAs of other shares are not there yet")
        return
    write_json(out / "results.json", {"schema_version": 1, **_results(store, base_model)})


def entry_name(name: str, seed: int, seeds: Sequence[int]) -> str:
    """Name in the store: the task's for the first seed, `NAME.seedS` for the others."""
    return name if seed == seeds[0] else f"{name}.seed{seed}"


def _share(share: str) -> tuple[int, int]:
    """`2/8` as (1, 8).

    Raises:
        UserError: if it is none.
    """
    place, slash, workers = share.partition("/")
    if not (slash and place.isdecimal() and workers.isdecimal() and 1 <= int(place) <= int(workers)):
        raise UserError(f"--share is '{share}': give PLACE/WORKERS, such as 1/4, 2/4, 3/4 and 4/4")
    return int(place) - 1, int(workers)


def _open_store(store: SnapshotStore, base_model: str, config: Any, form: Any, entries: Mapping[str, Any]) -> None:
    """Write the manifest, or see that the one that is there asks for the same.

    Raises:
        UserError: if the store was begun with other settings.
    """
    if not (store.folder / "manifest.json").is_file():
        store.create(base_model=base_model, adapter_config=config, text=form, tasks=entries)
        return
    kept = store.manifest
    old = {"base_model": kept["base_model"], "adapter_config": kept["adapter_config"], "tasks": kept["tasks"]}
    new = {"base_model": base_model, "adapter_config": config, "tasks": dict(entries)}
    if old != new:
        changed = next(key for key in new if old[key] != new[key])
        raise UserError(
            f"{store.folder}: begun with another {changed.replace('_', ' ')}, and can't be gone on with\n"
            "Give --out another folder, or the settings of before."
        )


def _groups(streams: Mapping[str, RowStream], tokens_at_once: int) -> Iterator[list[str]]:
    """Names of similar row lengths, as many as fit; a group has at least one."""
    group: list[str] = []
    for name in sorted(streams, key=lambda n: streams[n].longest):  # a batch is padded to its longest row
        if group and (len(group) + 1) * streams[name].batch_size * streams[name].longest > tokens_at_once:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _results(store: SnapshotStore, base_model: str) -> dict[str, Any]:
    rows = []
    for name in store.tasks:
        state = store.load(name)
        norms = [float(state[k].square().mean().sqrt()) for k in state if ".lora_B." in k]
        rows.append([name, len(store.steps(name)), sum(norms) / len(norms)])
    count = sum(v.numel() for v in state.values())
    text = f"{len(rows)} LoRAs of {count:,} weights each on `{base_model}`, all from one initialisation."
    columns = ["task", "snapshots", "rms of B (last)"]
    return {"metrics": {}, "statements": [text], "tables": [{"title": "Snapshots", "columns": columns, "rows": rows}]}
