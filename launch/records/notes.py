"""notes.json: sentences about a stage that its report and record repeat, such as that some of its metrics are lost."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...datamodules.files import write_json
from ...registry import Notice
from .redaction import redact

SCHEMA_VERSION = 1
MOST_NOTICES = 20


def add_note(folder: Path, text: str) -> bool:
    """Note a sentence in a stage's folder; returns whether it is a new one."""
    notes, text = read_notes(folder), redact(text)
    if text in notes:
        return False
    write_json(folder / "notes.json", {"schema_version": SCHEMA_VERSION, "notes": [*notes, text]})
    return True


def read_notes(folder: Path) -> list[str]:
    """The sentences noted in a stage's folder; none if the file is missing or damaged."""
    try:
        content = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    notes = content.get("notes") if isinstance(content, dict) else None
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def drop_notes(folder: Path) -> None:
    """Forget the notes, of a stage that begins afresh."""
    (folder / "notes.json").unlink(missing_ok=True)


@contextlib.contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Note every `Notice` that is warned of while entered, however it ends; the first `MOST_NOTICES`, and a count."""
    found: dict[str, None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)  # an earlier stage of this process may have given the same one
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                found[str(message)] = None
            show(message, category, *where, **more)

        warnings.showwarning = keep
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk is told by what writes next
                for text in list(found)[:MOST_NOTICES]:
                    add_note(folder, text)
                if len(found) > MOST_NOTICES:
                    add_note(folder, f"{len(found) - MOST_NOTICES} more warnings like these stand in what it printed.")
