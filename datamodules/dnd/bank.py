"""A task bank: a folder of `NAME.{train,test}.jsonl[.xz]`, and named tasks beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...registry import UserError, nearest
from .examples import Task
from .tasks import load_task


class TaskBank:
    """Tasks by short names.

    Args:
        folder: with `NAME.train.jsonl` and `NAME.test.jsonl`, plain or as `.xz`. `meta.json` there, an object of
            {NAME: {"kind": ...}}, tells the kinds; a task without an entry is of its own kind. None: named tasks alone.
        named: specs of `load_task` that belong to the bank too, such as `third_person`.

    Raises:
        UserError: if the folder is none, holds no task, or a name comes twice.
    """

    def __init__(self, folder: Path | None, named: Sequence[str] = ()) -> None:
        self._specs: dict[str, str] = {}
        kinds: Mapping[str, Mapping[str, str]] = {}
        if folder is not None:
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder\nGive a folder of NAME.train.jsonl and NAME.test.jsonl.")
            for file in sorted([*folder.glob("*.train.jsonl"), *folder.glob("*.train.jsonl.xz")]):
                self._specs[file.name.partition(".train.jsonl")[0]] = f"jsonl:{file}"
            if not self._specs:
                raise UserError(f"{folder}: no task here\nA task is NAME.train.jsonl[.xz] with NAME.test.jsonl[.xz].")
            kinds = _read_kinds(folder / "meta.json")
        for spec in named:
            if spec in self._specs:
                raise UserError(
                    f"task '{spec}' is in {folder} and among the named ones\nRename the file, or leave one."
                )
            self._specs[spec] = spec
        self._kinds = {name: str(kinds.get(name, {}).get("kind", name)) for name in self._specs}

    @property
    def names(self) -> list[str]:
        """All tasks, the folder's first."""
        return list(self._specs)

    def kind(self, name: str) -> str:
        """What sort of task it is, such as `sentiment`."""
        self._check(name)
        return self._kinds[name]

    def spec(self, name: str) -> str:
        """What `load_task` takes for it."""
        self._check(name)
        return self._specs[name]

    def load(self, name: str, *, limit: int | None = None, seed: int = 0) -> Task:
        """Its examples.

        Raises:
            UserError: for an unknown name, or as `load_task`.
        """
        return load_task(self.spec(name), limit=limit, seed=seed)

    def _check(self, name: str) -> None:
        if name not in self._specs:
            near = nearest(name, self.names) or self.names[:3]
            raise UserError(f"the task bank has no task '{name}'\nDid you mean {' or '.join(near)}?")


def _read_kinds(file: Path) -> Mapping[str, Mapping[str, str]]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f'{file}: can\'t be read: {error}\nIt tells kinds: {{NAME: {{"kind": ...}}}}') from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UserError(f'{file}: has to be an object of {{NAME: {{"kind": ...}}}}')
    return content
