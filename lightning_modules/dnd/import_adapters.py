"""`fulgurite dnd import`: PEFT adapters that were trained elsewhere, taken into a snapshot store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from torch import Tensor


LEAST_COSINE = 0.5  # of two adapters' A: LoRAs of one initialisation keep most of it, those of two have none in common
_SAME = ("r", "lora_alpha", "target_modules", "layers_to_transform", "use_rslora", "use_dora")


@COMMANDS.register("dnd import", paper="2506.16406")
def import_adapters(
    adapters: list[Path], prompts: list[Path], out: Path, template: str | None = None, end: str | None = None
) -> None:
    """Take PEFT adapter folders into a snapshot store that generators are trained on; add to one that is there.

    Args:
        adapters: folders with adapter_config.json and adapter_model.safetensors; each folder's name names its task.
        prompts: for each of them, in the same order, its task as JSON Lines of {prompt, response, choices?}.
        out: the store.
        template: chat format that they were trained with, `{prompt}` in it; default ChatML. Empty: the tokenizer's own.
        end: what ends an answer; default ChatML's. Empty: the tokenizer's end of sequence.
    """
    if len(adapters) != len(prompts) or not adapters:
        raise UserError(f"dnd import: {len(adapters)} adapters and {len(prompts)} files of prompts: one file for each")
    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.tasks import load_task
    from ...datamodules.dnd.text import TextFormat

    store, console = SnapshotStore(out), Console(stderr=True, highlight=False, soft_wrap=True)
    given = {"template": template, "end": end}
    form = TextFormat(**{k: v for k, v in given.items() if v is not None})
    old = store.manifest if (out / "manifest.json").is_file() else None
    if old is not None and any(v is not None and v != old["text"][k] for k, v in given.items()):
        raise UserError(f"{out}: its adapters have the chat format {old['text']['template']!r}: one store has one")
    config = dict(old["adapter_config"]) if old else _read_config(adapters[0])
    base = str(old["base_model"]) if old else str(config.get("base_model_name_or_path"))
    reference = (str(out), store.load(store.tasks[0])) if old else (str(adapters[0]), _read_weights(adapters[0]))
    entries: dict[str, Any] = dict(old["tasks"]) if old else {}
    states: dict[str, Mapping[str, Tensor]] = {}
    for folder, file in zip(adapters, prompts, strict=True):
        name = folder.resolve().name
        if name in entries:
            raise UserError(f"{folder}: the store has a task '{name}' already\nRename the folder.")
        _check_config(folder, _read_config(folder), config, base)
        states[name] = _read_weights(folder)
        _check_shapes(folder, states[name], *reference)
        entries[name] = {"spec": f"jsonl:{file.resolve()}", "limit": None, "seed": 0, "steps": [1]}
        load_task(entries[name]["spec"])  # a file with a mistake is refused now
        cosine = cosine_of_a(states[name], reference[1])
        if cosine < LEAST_COSINE:
            console.print(
                f"[yellow]{folder}: its A matrices have a cosine of {cosine:.2f} to those of {reference[0]}: they did "
                "not begin at the same initialisation. A generator learns little from such a mixture.[/yellow]"
            )
    for name, state in states.items():
        store.save(name, 1, state)
    text = store.text if old else form
    store.create(base_model=base, adapter_config=config, text=text, tasks=entries)
    console.print(f"{len(states)} adapters taken into {out}, which has {len(entries)} tasks on {base}")


def cosine_of_a(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Mean cosine between two adapters' A matrices, module by module."""
    from torch.nn.functional import cosine_similarity

    pairs = [(v.flatten().double(), reference[k].flatten().double()) for k, v in state.items() if ".lora_A." in k]
    return sum(float(cosine_similarity(a, b, dim=0)) for a, b in pairs) / len(pairs)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no PEFT adapter here: {error}\nGive folders with adapter_config.json.") from None
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        raise UserError(f"{folder}: adapter_config.json is not that of a LoRA")
    targets = content.get("target_modules")
    return {**content, "target_modules": sorted(targets) if isinstance(targets, list) else targets}


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    from ...datamodules.dnd.lora_layout import file_key

    try:
        loaded = load_file(folder / "adapter_model.safetensors")
    except Exception as error:  # safetensors raises its own type, and OSError
        raise UserError(f"{folder}: adapter_model.safetensors can't be read: {error}") from None
    return {file_key(key): value for key, value in loaded.items()}


def _check_config(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], base: str) -> None:
    if str(found.get("base_model_name_or_path")) != base:
        raise UserError(f"{folder}: made for {found.get('base_model_name_or_path')}, the others for {base}")
    for key in _SAME:
        one, other = found.get(key), wanted.get(key)
        if (sorted(one) if isinstance(one, list) else one) != (sorted(other) if isinstance(other, list) else other):
            raise UserError(f"{folder}: {key} is {one}, the others' is {other}: one store holds one kind of LoRA")


def _check_shapes(folder: Path, state: Mapping[str, Tensor], name: str, reference: Mapping[str, Tensor]) -> None:
    odd = sorted(state.keys() ^ reference.keys())
    if odd:
        raise UserError(f"{folder}: not the modules of {name}: {odd[0]} is in one of them only ({len(odd)} differ)")
    for key, value in state.items():
        if value.shape != reference[key].shape:
            raise UserError(f"{folder}: {key} is {list(value.shape)}, in {name} {list(reference[key].shape)}")
