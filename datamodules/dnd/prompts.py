"""The prompts that `fulgurite dnd adapt` turns into an adapter."""

from __future__ import annotations

from pathlib import Path

from ...registry import UserError
from .json_lines import read_lines, read_objects, text_field


def read_prompts(path: str | Path) -> list[str]:
    """Prompts from a text file (one a line) or, by its ending `.jsonl`, from JSON lines with a field `prompt`.

    Blank lines are skipped, white space around a prompt is cut off, repeats are kept.

    Args:
        path: UTF-8 text.

    Returns:
        At least one prompt, in the file's order.

    Raises:
        UserError: no file, a folder, binary, not UTF-8, empty, or a line without that field or far too long; the text
            names file and line.
    """
    path = Path(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return [text_field(row, "prompt", f"{path}:{line}") for line, row in read_objects(path, "prompts")]
    if path.suffix.lower() == ".json":
        raise UserError(
            f'{path}: give .txt with one prompt a line, or .jsonl with one object a line: {{"prompt": ...}}'
        )
    return [stripped for line in read_lines(path, "prompts, one a line") if (stripped := line.strip())]
