"""What was retrieved for a question, for the judge: one JSON object a line, a file a document, a folder an arm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ....datamodules.files import atomic_write
from ....registry import UserError

SCHEMA_VERSION = 1
JUDGED_K = 10  # the paper's k, by cosine


@dataclass(frozen=True)
class Context:
    """A question and the chunks that were found for it.

    Attributes:
        id: the question's.
        question: what is asked.
        texts: the chunks, best first.
    """

    id: str
    question: str
    texts: list[str]


def write_contexts(file: Path, contexts: Iterable[Context]) -> None:
    """Write a document's contexts, atomically."""
    with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as opened:
        for context in contexts:
            held = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(context)}
            opened.write(json.dumps(held, ensure_ascii=False) + "\n")


def read_contexts(file: Path) -> list[Context]:
    """The contexts of a file.

    Raises:
        UserError: if it can't be read or a line is no context; names the line.
    """
    found = []
    try:
        with open(file, encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                try:
                    held = json.loads(line)
                    if held["schema_version"] != SCHEMA_VERSION:
                        raise ValueError(f"schema_version {held['schema_version']}, this reads {SCHEMA_VERSION}")
                    texts = [str(text) for text in held["texts"]]
                    found.append(Context(str(held["id"]), str(held["question"]), texts))
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(f"{file}:{number}: is no context of `chunking evaluate`: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    return found
