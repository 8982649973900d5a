"""How far a stage is, in a small file in its folder, written every few seconds while it trains."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from ...datamodules.files import write_json

NAME = ".progress.json"  # hidden: it is no part of what a stage leaves
SCHEMA_VERSION = 1


def write_progress(folder: Path, step: int, total: int | None, speed: float | None) -> None:
    """Write how far a stage is; a disk that can't take it is somebody else's error.

    Args:
        folder: of the stage.
        step: steps done, of all runs of this stage together.
        total: steps in all, where that is known.
        speed: steps per second of this run.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "total": total,
        "steps_per_s": speed,
        "time": time.time(),
    }
    with contextlib.suppress(OSError):
        write_json(folder / NAME, content)


def read_progress(folder: Path) -> dict[str, Any]:
    """What `write_progress` wrote last; nothing if there is no whole file."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION and type(found.get("step")) is int
    return found if whole else {}
