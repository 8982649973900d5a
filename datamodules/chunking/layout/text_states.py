"""Embeddings of blocks' first words by a frozen sentence encoder: the mean of its token states.

Axis legend: P text, C channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...dnd.conditions import PromptEncoder

WIDTH = 384
MAX_HELD = 20_000  # texts whose embedding is kept: running lines and headings come again and again


class TextStates:
    """MiniLM's first layers over the first tokens of each text; the embedding of a text is computed once.

    Only the first `layers` of six are run: it is the dearest part of reading a page, and roles and
    breaks need words more than meaning.

    Args:
        length: tokens that a text is cut to.
        layers: how many of the encoder's layers are run.
    """

    def __init__(self, length: int = 32, layers: int = 2) -> None:
        self.encoder = PromptEncoder("minilm-l6", length, batch_size=64, device=torch.device("cpu"))
        model = self.encoder.model
        model.encoder.layer = model.encoder.layer[:layers]  # type: ignore[union-attr,index]
        self._held: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[P, C] float32 of unit length; zeros for an empty text."""
        new = sorted({t for t in texts if t and t not in self._held}, key=lambda t: (len(t), t))
        if new:
            if len(self._held) + len(new) > MAX_HELD:
                self._held.clear()
                new = sorted({t for t in texts if t}, key=lambda t: (len(t), t))
            found = self.encoder.embed(new).numpy().astype(np.float32)
            self._held.update(zip(new, found, strict=True))
        nothing = np.zeros(WIDTH, np.float32)
        return np.stack([self._held[t] if t else nothing for t in texts]) if texts else np.zeros((0, WIDTH), np.float32)
