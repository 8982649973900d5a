"""Folders of policies: a new one takes an old one's place only once it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ....registry import UserError

KINDS = (".json", ".safetensors", ".md", ".txt", ".jinja")  # of files that a policy's folder may hold


@contextlib.contextmanager
def new_policy_folder(folder: str | Path) -> Iterator[Path]:
    """Yield the path of a folder to make beside `folder`; it takes its name when the block ends well.

    An earlier policy stands aside until then, and is deleted last. When the block raises, nothing has changed.

    Args:
        folder: absent, empty, or a policy's.

    Raises:
        UserError: if `folder` holds something else, or is a file.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for the policy")
    if folder.exists() and any(folder.iterdir()) and not _is_policy(folder):
        raise UserError(f"{folder}: holds something else than a policy, and is left alone\nName a new folder in it.")
    staging, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(staging, ignore_errors=True)
    try:
        yield staging
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(staging, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_policy(folder: Path) -> bool:
    """Whether a folder holds a policy's files and nothing else, so that it may be replaced."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return False
    return str(kind).startswith("qwen2_5_vl") and all(f.is_file() and f.suffix in KINDS for f in folder.iterdir())
