"""Checkpoints of RLlib runs: a folder an iteration, and one small file that names the newest whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ...datamodules.files import write_json
from ...registry import UserError

LAST = "last.json"
SCHEMA_VERSION = 1


def save(algorithm: Any, folder: Path) -> None:
    """Save an algorithm; the checkpoint before it is deleted once the new one is whole and named.

    Raises:
        UserError: if it can't be written, a full disk included; the one before is kept.
    """
    iteration = int(algorithm.iteration)
    target = folder / f"iteration-{iteration:06d}"
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        algorithm.save_to_path(str(target.resolve()))
        write_json(folder / LAST, {"schema_version": SCHEMA_VERSION, "iteration": iteration, "folder": target.name})
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise UserError(
            f"{target}: the checkpoint can't be written: {error}\n"
            "The one before it is kept. Free some space and run again: it goes on."
        ) from error
    for old in folder.glob("iteration-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None.

    Raises:
        UserError: if the file that names it is damaged, or what it names is gone.
    """
    file = folder / LAST
    if not file.is_file():
        return None
    try:
        found = folder / json.loads(file.read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        found = folder
    if found == folder or not found.is_dir():
        raise UserError(
            f"{file}: the checkpoint is damaged\n"
            f"Delete {folder}, and this stage begins afresh; or start a separate run with --new."
        )
    return found
