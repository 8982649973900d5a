"""Prompts as conditions: token states of a frozen sentence encoder (arXiv 2506.16406, its decoderonly.py).

Axis legend: D dropout draw, P prompt, L text token of the encoder, C channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..sources.models import no_progress_bars, resolve_model

WINDOW = 512


class PromptEncoder:
    """Frozen encoder whose token states, not a pooled vector, are the generator's condition.

    Prompts are padded and truncated to `length` tokens; padded places keep their states, as in the authors' code, so
    the length of a prompt is visible. A `length` beyond 512 is encoded in windows of 512. In the authors' code the
    encoder's dropout stays on while the generator trains; here a few dropout draws are encoded once and drawn from.

    Args:
        name: model name (`resolve_model`), such as `minilm-l6`.
        length: L; a multiple of 512 if above 512.
        batch_size: prompts encoded at once.
        device: where to encode; None takes a GPU if there is one.

    Raises:
        ValueError: for a length that fits no window.
    """

    def __init__(
        self, name: str = "minilm-l6", length: int = 64, batch_size: int = 64, device: torch.device | None = None
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        if length > WINDOW and length % WINDOW:
            raise ValueError(f"length is at most {WINDOW}, or a multiple of it, not {length}")
        self.name, self.length, self.batch_size = name, length, batch_size
        place = resolve_model(name)
        with no_progress_bars():
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
            self.model: nn.Module = AutoModel.from_pretrained(place).eval().requires_grad_(False)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    @property
    def width(self) -> int:
        """C, the encoder's hidden size."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], *, dropout_draws: int = 0, seed: int = 0) -> Tensor:
        """Token states [max(1, dropout_draws), P, L, C], fp32 on the CPU.

        Args:
            prompts: P texts.
            dropout_draws: number of draws with dropout on; 0 encodes once without dropout.
            seed: seed of the dropout; the global generator is left as it was.
        """
        draws = []
        for draw in range(max(1, dropout_draws)):
            self.model.train(dropout_draws > 0)
            with torch.random.fork_rng():
                torch.manual_seed(seed * 7919 + draw)
                batches = (prompts[i : i + self.batch_size] for i in range(0, len(prompts), self.batch_size))
                draws.append(torch.cat([self._states(batch) for batch in batches]))
        self.model.eval()
        return torch.stack(draws)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Mean-pooled, normalised embeddings [P, C], fp32: how near prompts are to each other (not the condition)."""
        parts = []
        for start in range(0, len(prompts), self.batch_size):
            batch = self._tokens(prompts[start : start + self.batch_size], min(self.length, WINDOW), "longest")
            states_PLC = self.model(**batch).last_hidden_state
            mask_PL1 = batch["attention_mask"].unsqueeze(-1)
            parts.append(nn.functional.normalize((states_PLC * mask_PL1).sum(1) / mask_PL1.sum(1), dim=-1).cpu())
        return torch.cat(parts)

    def _tokens(self, prompts: Sequence[str], length: int, padding: str) -> Any:
        options: dict[str, Any] = {"padding": padding, "truncation": True, "max_length": length, "return_tensors": "pt"}
        return self.tokenizer(list(prompts), **options).to(self.device)

    def _states(self, prompts: Sequence[str]) -> Tensor:
        batch = self._tokens(prompts, self.length, "max_length")
        starts = range(0, self.length, WINDOW)
        windows = ({k: v[:, s : s + WINDOW] for k, v in batch.items()} for s in starts)
        return torch.cat([self.model(**window).last_hidden_state for window in windows], 1).cpu()
