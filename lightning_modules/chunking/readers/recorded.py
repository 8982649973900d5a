"""Answers kept in a folder: a run can be repeated, resumed and passed on without the server that gave them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.pages import PageBatch
from ....datamodules.files import write_json
from ....registry import UserError
from .protocol import READERS, CostedReader, PageReader

SCHEMA_VERSION = 1
WHO = "reader.json"


@READERS.register("recorded", paper="2506.16035")
class RecordedReader:
    """Replays answers by what was asked: the document's digest, the pages, the context, and the reader's settings.

    Args:
        record: folder of the answers.
        inner: reader that is asked for what the folder lacks, and whose answers are added; None replays alone.
    """

    def __init__(self, record: Path, inner: PageReader | None = None) -> None:
        self.record, self.inner = record, inner
        self.replayed = 0
        who = record / WHO
        held = _read(who) if who.is_file() else None
        if inner is None:
            if held is None:
                raise UserError(f"{record}: holds no recorded answers\nRecord some: --reader openai --record {record}")
            self.asked: dict[str, str] = held["settings"]
        else:
            self.asked = {"reader": type(inner).__name__, **inner.settings()}
            if held is not None and held["settings"] != self.asked:
                changed = sorted(
                    k for k in {*held["settings"], *self.asked} if held["settings"].get(k) != self.asked.get(k)
                )
                raise UserError(
                    f"{record}: was recorded with another {', '.join(changed)}\nGive another folder with --record."
                )
            if held is None:
                write_json(who, {"schema_version": SCHEMA_VERSION, "settings": self.asked})

    def settings(self) -> dict[str, str]:
        """Those of the reader that gave the answers."""
        return self.asked

    def usage(self) -> str:
        """How many answers were replayed, and what the inner reader used."""
        inner = f"; {self.inner.usage()}" if isinstance(self.inner, CostedReader) else ""
        return f"{self.replayed} answers replayed{inner}"

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The recorded answer, or the inner reader's.

        Raises:
            UserError: if there is none, or the file of one is damaged.
        """
        file = self.record / f"{self.key(batch, context)}.json"
        if file.is_file():
            self.replayed += 1
            return str(_read(file)["answer"])
        if self.inner is None:
            raise UserError(
                f"{self.record}: holds no answer for pages {batch.numbers[0]} to {batch.numbers[-1]} of "
                f"{batch.document.path.name}\nRecord it, or give the same document, --pages and --batch_pages."
            )
        answer = self.inner.read(batch, context)
        held = {"schema_version": SCHEMA_VERSION, "pages": list(batch.numbers), "source": batch.document.path.name}
        write_json(file, {**held, "answer": answer})
        return answer

    def key(self, batch: PageBatch, context: ChunkContext) -> str:
        """What an answer is filed under."""
        parts = [batch.document.sha256, list(batch.numbers), context.to_json(), dict(sorted(self.asked.items()))]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "backslashreplace")).hexdigest()


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {held['schema_version']}, this fulgurite reads {SCHEMA_VERSION}")
        return {**held, "settings": held["settings"]} if file.name == WHO else {**held, "answer": held["answer"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no recorded answer: {error}\nDelete it, or record it again.") from None
