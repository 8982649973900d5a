"""notes.json: sentences about a stage that its report and record repeat, such as that some of its metrics are lost."""

from __future__ import annotations

import json
from pathlib import Path

from ...datamodules.files import write_json

SCHEMA_VERSION = 1


def add_note(folder: Path, text: str) -> bool:
    """Note a sentence in a stage's folder; returns whether it is a new one."""
    notes = read_notes(folder)
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
