"""LoRA snapshots on disk: `<store>/<task>/<step>.safetensors` with PEFT's keys, and one manifest.json.

All adapters of a store share one base model, one LoRA configuration and one initialisation: without the last, A
matrices of different tasks are unrelated noise, and a regression onto them learns nothing (arXiv 2506.16406).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...registry import UserError, nearest
from ..files import atomic_write, write_json
from .text import TextFormat

SCHEMA_VERSION = 1


class SnapshotStore:
    """Reads and writes a folder of snapshots.

    Args:
        folder: the store; made when something is saved.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._manifest: dict[str, Any] | None = None

    def create(
        self, *, base_model: str, adapter_config: Mapping[str, Any], text: TextFormat, tasks: Mapping[str, Any]
    ) -> None:
        """Write the manifest.

        Args:
            base_model: as `resolve_model` takes it.
            adapter_config: PEFT's adapter_config.json as a dict.
            text: the chat format that the adapters were trained with.
            tasks: task name -> {"spec", "steps": the steps that will be saved, "limit", "seed"}.

        Raises:
            UserError: if two tasks' names make the same folder name.
        """
        folders = {self._file(task, 0).parent for task in tasks}
        if len(folders) < len(tasks):
            raise UserError(
                f"two of the tasks would share a folder below {self.folder}: {', '.join(tasks)}\nRename one."
            )
        self._manifest = {
            "schema_version": SCHEMA_VERSION,
            "base_model": base_model,
            "adapter_config": dict(adapter_config),
            "text": {"template": text.template, "end": text.end},
            "tasks": dict(tasks),
        }
        write_json(self.folder / "manifest.json", self._manifest)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest's content.

        Raises:
            UserError: if there is none, or it is of another schema.
        """
        if self._manifest is None:
            file = self.folder / "manifest.json"
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{file}: no snapshot store here: {error}\nfulgurite run dnd/tiny   makes one (stage collect)."
                ) from None
            if content.get("schema_version") != SCHEMA_VERSION:
                raise UserError(
                    f"{file}: schema {content.get('schema_version')}, this one reads {SCHEMA_VERSION}: collect again"
                )
            self._manifest = content
        return self._manifest

    @property
    def text(self) -> TextFormat:
        """The chat format of the adapters."""
        return TextFormat(**self.manifest["text"])

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the manifest."""
        return list(self.manifest["tasks"])

    def named(self, names: Iterable[str]) -> list[str]:
        """Tasks by name; `kind:emotion` stands for all of that kind, so that no relative of a held-out task is left.

        Raises:
            UserError: for a task or kind that the store does not have.
        """
        kinds = {task: str(entry.get("kind", task)) for task, entry in self.manifest["tasks"].items()}
        found: list[str] = []
        for name in names:
            kind = name.removeprefix("kind:")
            own = [name] if kind == name else [task for task in self.tasks if kinds[task] == kind]
            if not own:
                known = sorted(set(kinds.values()))
                raise UserError(
                    f"{self.folder}: no task of the kind '{kind}'\nDid you mean "
                    f"{' or '.join(nearest(kind, known) or known[:3])}?"
                )
            for task in own:
                self.steps(task)
            found += [task for task in own if task not in found]
        return found

    def steps(self, task: str) -> list[int]:
        """Steps of a task's snapshots, ascending.

        Raises:
            UserError: for a task that the store does not have.
        """
        if task not in self.manifest["tasks"]:
            near = nearest(task, self.tasks) or self.tasks[:3]
            raise UserError(
                f"{self.folder}: no task '{task}'\nDid you mean {' or '.join(near)}?\nIt has {', '.join(self.tasks)}."
            )
        return sorted(self.manifest["tasks"][task]["steps"])

    def save(self, task: str, step: int, state: Mapping[str, Tensor]) -> None:
        """Save one snapshot in fp32, atomically."""
        with atomic_write(self._file(task, step)) as temporary:
            save_file({k: v.detach().float().cpu().contiguous() for k, v in state.items()}, temporary)

    def load(self, task: str, step: int | None = None) -> dict[str, Tensor]:
        """One snapshot (the last, unless a step is given): PEFT key -> fp32 tensor.

        Raises:
            UserError: if its file is missing or damaged.
        """
        file = self._file(task, self.steps(task)[-1] if step is None else step)
        try:
            return dict(load_file(file))
        except Exception as error:  # safetensors raises its own type, and OSError
            raise UserError(
                f"{file}: the snapshot can't be read: {error}\nDelete the run's folder and collect again."
            ) from None

    def complete(self, task: str) -> bool:
        """Whether all of a task's snapshots are there; each file is written whole or not at all."""
        return all(self._file(task, step).is_file() for step in self.steps(task))

    def soup(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Mean of the tasks' last snapshots, weight by weight."""
        states = [self.load(task) for task in tasks]
        return {key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]}

    def _file(self, task: str, step: int) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in task)
        return self.folder / safe / f"{step:06d}.safetensors"


def read_adapter(file: Path) -> dict[str, Tensor]:
    """An adapter's file: PEFT key -> tensor.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return dict(load_file(file))
    except Exception as error:  # safetensors raises its own type, and OSError
        raise UserError(f"{file}: no adapter can be read there: {error}") from None
