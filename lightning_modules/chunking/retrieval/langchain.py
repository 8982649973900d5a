"""Chunks for LangChain: documents with their headings, pages and neighbours as metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....datamodules.chunking.chunks import read_chunks
from ....registry import install_line
from .store import heading_path, shown_text

try:
    from langchain_core.document_loaders import BaseLoader
    from langchain_core.documents import Document
except ModuleNotFoundError as error:
    needs = f"the LangChain adapter needs langchain-core: {install_line('chunking')}"
    raise ModuleNotFoundError(needs, name=error.name) from None


class ChunkLoader(BaseLoader):
    """`ChunkLoader("chunks.jsonl").load()`: a Document for each chunk, its headings above its text.

    Args:
        path: a chunks.jsonl.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def lazy_load(self) -> Iterator[Document]:
        """Documents in order, read one by one."""
        for chunk in read_chunks(self.path):
            metadata: dict[str, Any] = {
                "source": chunk.source, "page_start": chunk.page_start, "page_end": chunk.page_end,
                "headings": heading_path(chunk), "kind": chunk.kind, "prev_id": chunk.prev_id, "next_id": chunk.next_id,
            }  # fmt: skip
            yield Document(id=chunk.id, page_content=shown_text(chunk), metadata=metadata)
