"""Peers that cut a text without having seen the page: fixed size, recursive, semantic. pypdf extracts the text."""

from __future__ import annotations

import itertools
import re

import numpy as np

from ....registry import UserError, install_line
from ..retrieval.encoder import WINDOW
from .source import ARMS, PagedText, Piece, Source

OVERLAP = 50
PERCENTILE = 95
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


@ARMS.register("fixed", reads="text")
def fixed(source: Source) -> list[Piece]:
    """Windows of 510 tokens of the encoder, without overlap."""
    return cut_fixed(source.plain, source)


@ARMS.register("reader_fixed", reads="chunks")
def reader_fixed(source: Source) -> list[Piece]:
    """The same windows over what our reader read, in its order: tells chunking apart from reading."""
    return cut_fixed(source.read, source)


def cut_fixed(text: PagedText, source: Source) -> list[Piece]:
    """A text cut every 510 tokens."""
    places = source.encoder.offsets(text.text)
    starts = range(0, len(places), WINDOW)
    return text.pieces((places[s][0], places[min(s + WINDOW, len(places)) - 1][1]) for s in starts)


@ARMS.register("recursive", reads="text")
def recursive(source: Source) -> list[Piece]:
    """LangChain's RecursiveCharacterTextSplitter, 510 tokens with 50 of overlap."""
    return cut_recursively(source.plain, source)


def cut_recursively(text: PagedText, source: Source) -> list[Piece]:
    """A text cut at blank lines, then line ends, then spaces, until a part has 510 tokens at most."""
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
    except ImportError:
        raise UserError(NEEDS) from None
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=WINDOW, chunk_overlap=OVERLAP, length_function=source.encoder.count, keep_separator=True
    )
    spans, place = [], 0
    for part in splitter.split_text(text.text):
        # parts overlap, so the next one begins after the start of the one before
        found = text.text.find(part, place)
        start = found if found >= 0 else place
        spans.append((start, start + len(part)))
        place = start + 1
    return text.pieces(spans)


@ARMS.register("semantic", reads="text")
def semantic(source: Source) -> list[Piece]:
    """Cuts where neighbouring sentences differ most: above the 95th percentile of the document's cosine distances.

    As LangChain's and LlamaIndex's semantic splitters do it: sentences end at `.`, `?` or `!` before white space, each
    is encoded with one neighbour on either side, and no chunk has a limit.
    """
    text = source.plain.text
    ends = [m.start() for m in _SENTENCE_END.finditer(text)]
    starts = [0, *(m.end() for m in _SENTENCE_END.finditer(text))]
    spans = [(s, e) for s, e in zip(starts, [*ends, len(text)], strict=True) if text[s:e].strip()]
    if len(spans) < 3:
        return source.plain.pieces([(0, len(text))])
    last = len(spans) - 1
    grouped = [text[spans[max(k - 1, 0)][0] : spans[min(k + 1, last)][1]] for k in range(len(spans))]
    vectors = source.encoder.vectors(grouped)
    distances = 1 - (vectors[:-1] * vectors[1:]).sum(1)
    limit = np.percentile(distances, PERCENTILE)
    cuts = [k + 1 for k, d in enumerate(distances) if d > limit]
    edges = [0, *cuts, len(spans)]
    return source.plain.pieces((spans[a][0], spans[b - 1][1]) for a, b in itertools.pairwise(edges) if b > a)


NEEDS = f"this arm needs the package langchain-text-splitters\n{install_line('chunking')}"
