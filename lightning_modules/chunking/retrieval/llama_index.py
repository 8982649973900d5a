"""Chunks for LlamaIndex: text nodes with their headings and pages, linked to neighbours and document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....datamodules.chunking.chunks import read_chunks
from ....registry import UserError
from .store import heading_path, shown_text


def load_nodes(path: str | Path) -> list[Any]:
    """A TextNode for each chunk of a chunks.jsonl, its headings above its text.

    Returns:
        `VectorStoreIndex(nodes)` takes them as they are.

    Raises:
        UserError: if llama-index-core is not installed, or what `read_chunks` raises.
    """
    try:
        from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    except ImportError:
        raise UserError("the LlamaIndex adapter needs llama-index-core\npip install llama-index-core") from None
    found = []
    for chunk in read_chunks(Path(path)):
        links = {
            NodeRelationship.SOURCE: chunk.source_sha256,
            NodeRelationship.PREVIOUS: chunk.prev_id,
            NodeRelationship.NEXT: chunk.next_id,
        }
        metadata = {
            "source": chunk.source, "page_start": chunk.page_start, "page_end": chunk.page_end,
            "headings": heading_path(chunk), "kind": chunk.kind,
        }  # fmt: skip
        related = {link: RelatedNodeInfo(node_id=name) for link, name in links.items() if name}
        node = TextNode(id_=chunk.id, text=shown_text(chunk), metadata=metadata, relationships=related)
        # the headings stand in the text already; an embedding of the metadata would count them twice
        node.excluded_embed_metadata_keys = list(metadata)
        found.append(node)
    return found
