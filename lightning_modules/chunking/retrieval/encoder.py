"""Texts as vectors: MiniLM's mean-pooled token states, long texts window by window, with a cache on disk.

Axis legend: W window, L token, C channel.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ....datamodules.sources.models import no_progress_bars, resolve_model

WINDOW = 510  # tokens of a window; the model takes 512 with the two that frame a text
BATCH_TOKENS = 8192
BLOCK_CHARS = 20_000


class TextEncoder:
    """Counts a text's tokens, cuts it at them, and gives vectors of unit length.

    Args:
        name: model name (`resolve_model`) of a BERT-like sentence encoder with a tokenizer.json.
        cache: SQLite file that keeps vectors by their text's digest; None keeps none. Several processes may share it.
    """

    def __init__(self, name: str = "minilm-l6", cache: Path | None = None) -> None:
        from tokenizers import Tokenizer

        self.name = name
        self._place = resolve_model(name)
        self._tokenizer: Any = Tokenizer.from_file(str(Path(self._place) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cache = VectorCache(cache) if cache is not None else None

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel

        with no_progress_bars():
            model = AutoModel.from_pretrained(self._place).eval().requires_grad_(False)
        return model.to(device="cuda" if torch.cuda.is_available() else "cpu", dtype=_precision())

    @cached_property
    def width(self) -> int:
        """C, the vectors' length."""
        return int(self._model.config.hidden_size)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """First and last place (exclusive) of each token in the text."""
        return [(start + a, start + b) for start, part in _blocks(text) for a, b in self._encoding(part).offsets]

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return sum(len(self._encoding(part).ids) for _, part in _blocks(text))

    def _encoding(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def cut(self, text: str, num_tokens: int) -> str:
        """The first `num_tokens` tokens of a text, as they stand in it."""
        places = self.offsets(text)
        return text if len(places) <= num_tokens else text[: places[num_tokens - 1][1]] if num_tokens > 0 else ""

    def windows(self, text: str) -> list[str]:
        """A text in pieces of at most `WINDOW` tokens; a shorter one, or an empty one, is its own window."""
        places = self.offsets(text)
        if len(places) <= WINDOW:
            return [text]
        starts = range(0, len(places), WINDOW)
        return [text[places[s][0] : places[min(s + WINDOW, len(places)) - 1][1]] for s in starts]

    def vectors(self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None) -> np.ndarray:
        """Unit vectors [len(texts), C], fp32; what exceeds the window of a text is not seen (`windows` cuts it).

        Args:
            texts: what to encode; equal texts are encoded once.
            progress: told how many texts are done, after each batch.
        """
        found: dict[str, np.ndarray] = self._cache.read(self._key, texts) if self._cache else {}
        missing = sorted({t for t in texts if t not in found}, key=len)
        progress(len(found))
        for batch in _batches(missing, [self.count(t) for t in missing]):
            made = dict(zip(batch, self._encode(batch), strict=True))
            if self._cache:
                self._cache.write(self._key, made)
            found |= made
            progress(len(found))
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return np.stack([found[t] for t in texts])

    @cached_property
    def _key(self) -> str:
        return f"{self.name}/{_precision()}/{WINDOW}"

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch
        from torch.nn.functional import normalize

        encodings = self._tokenizer.encode_batch(list(texts))
        rows = [e.ids if len(e.ids) <= WINDOW + 2 else [*e.ids[: WINDOW + 1], e.ids[-1]] for e in encodings]
        length = max(map(len, rows))
        ids = torch.tensor([r + [0] * (length - len(r)) for r in rows], device=self._model.device)
        mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows], device=self._model.device)
        with torch.no_grad():
            states_WLC = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mask_WL1 = mask.unsqueeze(-1)
        pooled_WC = normalize((states_WLC * mask_WL1).sum(1) / mask_WL1.sum(1), dim=-1)
        return np.asarray(pooled_WC.cpu().numpy(), np.float32)


class VectorCache:
    """Vectors by model and text, in one SQLite file; a call that was killed leaves what it had finished."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, timeout=60)
        self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (digest BLOB PRIMARY KEY, vector BLOB)")

    def read(self, model: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the texts that are kept."""
        found = {}
        for text in set(texts):
            row = self._connection.execute("SELECT vector FROM vectors WHERE digest = ?", (_digest(model, text),))
            if (held := row.fetchone()) is not None:
                found[text] = np.frombuffer(held[0], np.float32)
        return found

    def write(self, model: str, made: dict[str, np.ndarray]) -> None:
        """Keep vectors."""
        rows = [(_digest(model, text), np.asarray(vector, np.float32).tobytes()) for text, vector in made.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)


def _precision() -> Any:
    """Bfloat16 where the processor multiplies it (cosine to fp32 above 0.999), else fp32."""
    import torch

    if torch.cuda.is_available():
        return torch.float32
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _batches(texts: Sequence[str], lengths: Sequence[int]) -> Iterator[list[str]]:
    """Texts, ordered by length, in batches of about `BATCH_TOKENS` tokens with their padding."""
    batch: list[str] = []
    longest = 0
    for text, length in zip(texts, lengths, strict=True):
        length = min(length, WINDOW) + 2
        if batch and max(longest, length) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch, longest = [], 0
        batch.append(text)
        longest = max(longest, length)
    if batch:
        yield batch


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """A text in parts of `BLOCK_CHARS`, cut at white space, which parts tokens anyway: a book at once takes memory."""
    start = 0
    while start < len(text):
        end = start + BLOCK_CHARS
        while end < len(text) and not text[end].isspace():
            end += 1
        yield start, text[start:end]
        start = end


def _digest(model: str, text: str) -> bytes:
    return hashlib.sha256(f"{model}\0{text}".encode("utf-8", "surrogatepass")).digest()
