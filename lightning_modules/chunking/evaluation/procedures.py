"""Numbered procedures of known documents: how many stay in one chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....datamodules.chunking.chunks import Chunk
from ....datamodules.chunking.questions.procedures import labelled_procedures


def procedure_scores(chunks: Mapping[str, Sequence[Chunk]]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A table and metrics for documents with labelled procedures; nothing for others.

    Args:
        chunks: file name -> all its chunks.
    """
    rows: list[list[Any]] = []
    right = total = right_over = over = 0
    for name in sorted(chunks):
        own = [p for p in labelled_procedures() if p.pdf == name]
        if not own:
            continue
        whole = [p.is_whole(chunks[name]) for p in own]
        long = [w for p, w in zip(own, whole, strict=True) if p.page_end > p.page_start]
        rows.append([name, len(own), sum(whole), len(long), sum(long)])
        right, total = right + sum(whole), total + len(own)
        right_over, over = right_over + sum(long), over + len(long)
    if not rows:
        return [], {}
    rows.append(["all", total, right, over, right_over])
    table = {
        "title": "Numbered procedures labelled by hand",
        "columns": ["document", "procedures", "in one chunk", "over pages", "of those in one chunk"],
        "rows": rows,
        "note": "In one chunk: it holds the first step's first words and behind them the last step's last.",
    }
    return [table], {"test/procedures/whole": right / total}
