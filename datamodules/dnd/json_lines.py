"""Text files that users hand in: read as UTF-8, line by line, with errors that name file and line."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...registry import UserError

LONGEST_LINE = 100_000  # letters; no prompt is that long, and a tokenizer would work on it for minutes


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file, without line ends; a byte order mark is dropped. `.xz` files are unpacked.

    Args:
        path: the file.
        what: what the file should hold, for the error texts, such as "prompts".

    Raises:
        UserError: if it does not exist, is a folder, is binary, is not UTF-8, holds only white space, or has a line
            longer than `LONGEST_LINE`.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no ordinary file\nGive a file of {what}.")
    try:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except lzma.LZMAError as error:
        raise UserError(f"{path} is no whole xz file: {error}\nPack it again, or give it unpacked.") from None
    except FileNotFoundError:
        raise UserError(f"no such file: {path}\nGive a file of {what}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder\nGive a file of {what}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if b"\0" in content:
        raise UserError(f"{path} is a binary file, or UTF-16\nGive a file of {what}, as UTF-8 text.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x})\nSave it as UTF-8.") from None
    if not text.strip():
        raise UserError(f"{path} is empty\nGive a file of {what}.")
    lines = [line.rstrip("\r") for line in text.split("\n")]  # splitlines would also cut at U+2028 and form feeds
    for number, text in enumerate(lines, start=1):
        if len(text) > LONGEST_LINE:
            raise UserError(
                f"{path}:{number}: a line of {len(text):,} letters; {LONGEST_LINE:,} is the most\n"
                f"Give a file of {what}."
            )
    return lines


def read_objects(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of every line of a JSONL file that is not blank.

    Raises:
        UserError: as `read_lines`, and for a line that is no JSON object.
    """
    for number, line in enumerate(read_lines(path, what), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "not readable"
            raise UserError(f"{path}:{number}: not JSON: {reason}\nEach line has to be one JSON object.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: a {type(row).__name__}, not an object\nEach line: {{...}}.")
        yield number, row


def text_field(row: dict[str, Any], field: str, where: str) -> str:
    """The text in a field, without surrounding white space.

    Args:
        row: a line's object.
        field: its name.
        where: `file:line` for the error.

    Raises:
        UserError: if the field is missing, not a text, blank, or not valid Unicode.
    """
    if field not in row:
        present = ", ".join(repr(key) for key in list(row)[:8]) or "none"
        raise UserError(f"{where}: no field '{field}' (fields: {present})")
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        kind = "blank" if isinstance(value, str) else f"a {type(value).__name__}"
        raise UserError(f"{where}: field '{field}' is {kind}, and has to be a text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{where}: field '{field}' holds half of a surrogate pair, which is no character")
    return value.strip()
