"""What the benches' commands share: lists on the command line, cells of a table, files that are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from ...registry import UserError

SCHEMA_VERSION = 1


def names_in(flag: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The names in a list with commas.

    Raises:
        UserError: for a name that is none of `known`, or an empty list.
    """
    given = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [part for part in given if part not in known] or ([] if given else ["nothing"]):
        raise UserError(f"{flag} {text}: {wrong[0]!r} is none of {', '.join(known)}")
    return given


def shares_in(text: str) -> list[float]:
    """The densities in a list with commas.

    Raises:
        UserError: for one that is no share.
    """
    try:
        given = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        given = [-1.0]
    if not all(0 < share <= 1 for share in given):
        raise UserError(f"--densities {text}: numbers above 0, at most 1, with commas")
    return given


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, dict):
        return " ".join(f"{key} {number:.3f}" for key, number in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def write_numbers(path: Path, bench: str, seed: int, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write what a bench of attention measured as JSON.

    Args:
        path: of the file.
        bench: its name, the command's last word.
        seed: of its inputs.
        rows: of its table.
        more: what else it tells, such as `device` and `failed`; with a device come the versions that it ran with.
    """
    versions = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()} if "device" in more else {}
    content = {"schema_version": SCHEMA_VERSION, "bench": bench, **versions, "seed": seed, "rows": rows, **more}
    write_whole(path, json.dumps(content, indent=1).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
