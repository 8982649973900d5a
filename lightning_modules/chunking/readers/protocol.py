"""What a reader is, and the registry that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ....datamodules.chunking.chunks import PlacedChunk
from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.pages import PageBatch
from ....registry import Registry

READERS = Registry("readers")


@runtime_checkable
class PageReader(Protocol):
    """Looks at pages and writes chunks."""

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The batch's chunks in the contract's tagged text (datamodules/chunking/contract.py)."""
        ...

    def settings(self) -> dict[str, str]:
        """What its answers depend on, besides pages and context; a run that was cut off goes on only with the same."""
        ...


@dataclass(frozen=True)
class PlacedAnswer:
    """An answer with the places of its chunks.

    Attributes:
        chunks: the chunks, with three headings and boxes.
        left_out: page number -> text that the rules tell to drop: running lines, page numbers, contents.
    """

    chunks: tuple[PlacedChunk, ...]
    left_out: dict[int, str] = field(default_factory=dict)


@runtime_checkable
class PlacingReader(PageReader, Protocol):
    """A reader that knows where its chunks stand, and need not have them looked up in the text layer."""

    def read_placed(self, batch: PageBatch, context: ChunkContext) -> PlacedAnswer:
        """What `read` writes, with places."""
        ...


@runtime_checkable
class CostedReader(PageReader, Protocol):
    """A reader whose calls cost tokens and money."""

    def usage(self) -> str:
        """What was used so far, in words."""
        ...
