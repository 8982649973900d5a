"""Which pieces of text answer a question: cosine of MiniLM vectors, BM25, and both by reciprocal rank.

A piece longer than the encoder's window has several vectors and counts by its best one. Hybrid adds 1 / (60 + rank) of
both lists (reciprocal rank fusion, Cormack et al. 2009): the scores themselves have no common scale.

Axis legend: P piece, W window, C channel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .encoder import TextEncoder
from .words import words

Mode = Literal["vector", "text", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
K1, B = 1.2, 0.75  # Lucene's
FUSION = 60


class Ranker:
    """Ranks a document's pieces for questions.

    Args:
        texts: the pieces, P of them.
        encoder: gives vectors.
    """

    def __init__(self, texts: Sequence[str], encoder: TextEncoder) -> None:
        self.encoder = encoder
        parts = [encoder.windows(text) for text in texts]
        self._owner = np.repeat(np.arange(len(texts)), [len(p) for p in parts])
        self._vectors_WC = encoder.vectors([w for p in parts for w in p])
        self._words = WordIndex(texts)

    def order(self, question: str) -> dict[Mode, list[int]]:
        """Numbers of the pieces, best first, by each mode; pieces without a word of the question are not in `text`."""
        scores_W = self._vectors_WC @ self.encoder.vectors([question])[0]
        best_P = np.full(self._words.num_texts, -np.inf, np.float32)
        np.maximum.at(best_P, self._owner, scores_W)
        vector = np.argsort(-best_P, kind="stable").tolist()
        text = self._words.order(question)
        return {"vector": vector, "text": text, "hybrid": fuse([vector, text])}


class WordIndex:
    """BM25 over texts: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), k1 = 1.2, b = 0.75, over `words`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.num_texts = len(texts)
        held: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = np.zeros(len(texts))
        for number, text in enumerate(texts):
            counts = Counter(words(text))
            lengths[number] = sum(counts.values())
            for word, count in counts.items():
                held[word].append((number, count))
        self._held = {word: np.array(pairs).T for word, pairs in held.items()}
        self._norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1e-9)) if len(texts) else lengths

    def order(self, question: str) -> list[int]:
        """Numbers of the texts that share a word with the question, best first."""
        scores = np.zeros(self.num_texts)
        for word in words(question):
            if word in self._held:
                places, counts = self._held[word]
                idf = np.log(1 + (self.num_texts - len(places) + 0.5) / (len(places) + 0.5))
                scores[places] += idf * counts * (K1 + 1) / (counts + self._norm[places])
        ranked = np.argsort(-scores, kind="stable")
        return [int(k) for k in ranked if scores[k] > 0]


def fuse(lists: Sequence[Sequence[int]]) -> list[int]:
    """One order out of several, by the sum of 1 / (60 + rank); ties by the lower number."""
    scores: dict[int, float] = defaultdict(float)
    for ranked in lists:
        for rank, number in enumerate(ranked, 1):
            scores[number] += 1 / (FUSION + rank)
    return sorted(scores, key=lambda number: (-scores[number], number))
