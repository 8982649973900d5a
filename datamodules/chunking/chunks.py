"""The chunk record and its file, chunks.jsonl: one chunk a line, described by chunks.schema.json beside this module."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import UserError
from ..files import atomic_write
from .contract import Flag, TaggedChunk
from .lines import Kind, kind_of

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("chunks.schema.json")
BOX_DIGITS = 2


@dataclass(frozen=True)
class Box:
    """A place on a page: page number from 1, corners in PDF points, origin at the shown page's top left."""

    page: int
    x0: float
    y0: float
    x1: float
    y1: float

    def rounded(self) -> Box:
        """The box in hundredths of a point."""
        return Box(self.page, *(round(float(v), BOX_DIGITS) for v in (self.x0, self.y0, self.x1, self.y1)))


@dataclass(frozen=True)
class PlacedChunk:
    """A chunk of an answer and where it stands.

    Attributes:
        tagged: the chunk; its headings are three levels.
        boxes: where its text stands, in reading order; may be empty where that could not be found.
        page_start: first page, from 1.
        page_end: last page, inclusive.
    """

    tagged: TaggedChunk
    boxes: tuple[Box, ...]
    page_start: int
    page_end: int


@dataclass(frozen=True)
class Chunk:
    """One line of chunks.jsonl.

    Attributes:
        id: first twelve digits of the source's sha256, and the chunk's number in it.
        text: what it says, verbatim.
        headings: title, section, subject.
        continues: the flag: `True`, `False` or `Partial`, as text.
        kind: text, table_row, steps, list, faq or figure.
        page_start: first page, from 1.
        page_end: last page, inclusive.
        boxes: where it stands.
        prev_id: the chunk before it in its document; None for the first.
        next_id: the chunk after it; None for the last.
        source: file name of the document.
        source_sha256: digest of the document.
        reader: name of the reader.
        schema_version: of the format.
    """

    id: str
    text: str
    headings: tuple[str, str, str]
    continues: Flag
    kind: Kind
    page_start: int
    page_end: int
    boxes: tuple[Box, ...]
    prev_id: str | None
    next_id: str | None
    source: str
    source_sha256: str
    reader: str
    schema_version: int = SCHEMA_VERSION

    def to_line(self) -> str:
        """The chunk as one line of JSON, without its end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def number_chunks(placed: Iterable[PlacedChunk], source: str, source_sha256: str, reader: str) -> list[Chunk]:
    """Records of a document's merged chunks, numbered from 1 and linked."""
    parts = list(placed)
    ids = [f"{source_sha256[:12]}-{number:05d}" for number in range(1, len(parts) + 1)]
    found = []
    for k, part in enumerate(parts):
        headings = part.tagged.headings
        found.append(
            Chunk(
                id=ids[k],
                text=part.tagged.text,
                headings=(headings[0], headings[1], headings[2]),
                continues=part.tagged.continues,
                kind=kind_of(part.tagged.text),
                page_start=part.page_start,
                page_end=part.page_end,
                boxes=tuple(b.rounded() for b in part.boxes),
                prev_id=ids[k - 1] if k else None,
                next_id=ids[k + 1] if k + 1 < len(ids) else None,
                source=source,
                source_sha256=source_sha256,
                reader=reader,
            )
        )
    return found


def write_chunks(path: Path, chunks: Iterable[Chunk]) -> int:
    """Write chunks.jsonl atomically; returns how many chunks it holds."""
    count = 0
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for chunk in chunks:
            file.write(chunk.to_line() + "\n")
            count += 1
    return count


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Chunks of a file, one after the other.

    Raises:
        UserError: if the file is missing, a line is no chunk, or it was written by a later version; names the line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _from_json(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(f"{path}:{number}: is no chunk: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None


def _from_json(held: dict[str, Any]) -> Chunk:
    version = held["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version {version}, this fulgurite reads {SCHEMA_VERSION}")
    names = {f.name for f in dataclasses.fields(Chunk)}
    if held.keys() != names:
        raise ValueError(f"fields {sorted(held.keys() ^ names)} are missing or too many")
    title, section, subject = held["headings"]
    return Chunk(**{**held, "headings": (title, section, subject), "boxes": tuple(Box(**b) for b in held["boxes"])})


def placed_to_json(placed: PlacedChunk) -> dict[str, Any]:
    """A placed chunk as plain JSON values, for the journal of a run."""
    return dataclasses.asdict(placed)


def placed_from_json(held: dict[str, Any]) -> PlacedChunk:
    """What `placed_to_json` gave."""
    tagged = held["tagged"]
    return PlacedChunk(
        TaggedChunk(tagged["continues"], tuple(tagged["headings"]), tagged["text"]),
        tuple(Box(**b) for b in held["boxes"]),
        held["page_start"],
        held["page_end"],
    )
