"""`fulgurite export RUN --format F`: what a run has trained, in a form that other libraries load.

Papers leave their networks in the forms of the libraries that run them: folders of transformers (`hf`), diffusers and
PEFT. Those are copied as they are. Any fit's checkpoint becomes safetensors, a sharded one gathered first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..datamodules.files import atomic_write
from ..registry import UserError
from .stages.run_folder import RunFolder

WEIGHTS = "model.safetensors"
_MARKS = {"peft": ("adapter_config.json", "peft_type"), "diffusers": ("config.json", "_class_name"),
          "hf": ("config.json", "model_type")}  # fmt: skip


def export(run: RunFolder, kind: str, out: Path, stage: str | None) -> list[Path]:
    """Export a run's weights.

    Args:
        run: a run that has ended well, or one of whose stages has.
        kind: safetensors, hf, diffusers, peft or onnx.
        out: a folder that is not there yet, or is empty.
        stage: this stage alone; else all.

    Returns:
        The folders or files that were written, below `out`.

    Raises:
        UserError: if the run has nothing of this kind, with the reason and what it has.
    """
    stages = [name for name, entry in run.state["stages"].items() if entry["state"] == "done"]
    if stage is not None and stage not in stages:
        raise UserError(f"{run.path}: no finished stage '{stage}'\nIt has {', '.join(stages) or 'none'}.")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty\nGive a folder that is not there yet: --out FOLDER")
    chosen = [stage] if stage else stages
    if kind == "onnx":
        raise UserError(
            f"onnx: no module of this package says with which inputs its graph is to be traced\n{_has(run, chosen)}"
        )
    written = []
    if kind == "safetensors":
        for name in chosen:
            checkpoint = run.path / name / "checkpoints" / "last.ckpt"
            if checkpoint.exists():
                written.append(_weights(checkpoint, out / name / WEIGHTS))
    else:
        for name in chosen:
            for folder in folders_of(run.path / name, kind):
                target = out / name / folder.relative_to(run.path / name)
                shutil.copytree(folder, target, ignore=shutil.ignore_patterns(".*"))
                written.append(target)
    if not written:
        raise UserError(f"{run.path}: nothing of the form {kind} in {', '.join(chosen) or 'it'}\n{_has(run, chosen)}")
    return written


def folders_of(root: Path, kind: str) -> Iterator[Path]:
    """Folders below `root` that a library of this kind loads, told by their configuration file."""
    name, key = _MARKS[kind]
    for file in sorted(root.rglob(name)):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and key in content and list(file.parent.glob("*.safetensors")):
            yield file.parent


def _has(run: RunFolder, stages: list[str]) -> str:
    found = [kind for kind in _MARKS if any(True for s in stages for _ in folders_of(run.path / s, kind))]
    if any((run.path / s / "checkpoints" / "last.ckpt").exists() for s in stages):
        found.insert(0, "safetensors")
    return f"It has {', '.join(found)}." if found else "It has no weights in any form."


def _weights(checkpoint: Path, target: Path) -> Path:
    """The module's tensors as one safetensors file; what several names share is written for each."""
    from safetensors.torch import save_file

    state = _state(checkpoint)
    tensors = {name: value.detach().clone().contiguous() for name, value in state.items() if hasattr(value, "detach")}
    if not tensors:
        raise UserError(f"{checkpoint}: no weights in this checkpoint")
    with atomic_write(target) as temporary:
        run, stage = checkpoint.parents[2].name, checkpoint.parents[1].name
        save_file(tensors, temporary, {"format": "pt", "from": f"{run}/{stage}"})
    return target


def _state(checkpoint: Path) -> dict[str, Any]:
    import torch

    if checkpoint.is_file():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
        return state
    import tempfile

    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as folder:  # a folder of shards, one a rank
        whole = Path(folder) / "whole.ckpt"
        dcp_to_torch_save(checkpoint, whole)
        gathered = torch.load(whole, weights_only=True, map_location="cpu")
    return dict(gathered.get("state_dict", gathered))
