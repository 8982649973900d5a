"""Writing files so that a half-written one never takes the place of a whole one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s name when the block ends well, and is removed if not.

    The temporary name carries the process id, so two writers never share one.

    Raises:
        OSError: whatever the writing raised, such as a full disk; `path` is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # some writers make private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        # a file name's bytes that are no text reach Python as surrogates; as `\\udcff`, they are JSON
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
