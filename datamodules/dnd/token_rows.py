"""Examples as token ids, tokenised once, for training many adapters together. Axis legend: R row, T text token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..draws import Shuffled
from .examples import Example
from .text import IGNORED, TextFormat

Row = tuple[list[int], list[int]]


def token_rows(tokenizer: Any, form: TextFormat, examples: Sequence[Example], max_length: int) -> list[Row]:
    """(prompt ids, answer ids) of each example; a prompt that is too long loses its beginning, never the answer.

    Args:
        tokenizer: of the base model.
        form: the chat format.
        examples: what to tokenise.
        max_length: tokens of a row.
    """
    if form.template:
        texts = [form.template.replace("{prompt}", e.prompt) for e in examples]
        prompts: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    else:
        prompts = [form.prompt_ids(tokenizer, e.prompt) for e in examples]
    ends = [e.response + (form.end or str(tokenizer.eos_token)) for e in examples]
    answers: list[list[int]] = tokenizer(ends, add_special_tokens=False)["input_ids"]
    cut = [a[:max_length] for a in answers]
    return [(p[-max(1, max_length - len(a)) :], a) for p, a in zip(prompts, cut, strict=True)]


class RowStream:
    """An endless stream of a task's rows: batch `step` is a function of (seed, step) alone.

    Args:
        rows: of one task.
        batch_size: rows of a batch.
        seed: of the orders.
    """

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self._draws, self.batch_size = Shuffled(rows, seed), batch_size
        self.longest = max(len(p) + len(a) for p, a in rows)

    def row(self, place: int) -> Row:
        """One row of the stream."""
        found: Row = self._draws[place]
        return found

    def batch(self, step: int) -> list[Row]:
        """The rows of one step."""
        return [self.row(step * self.batch_size + i) for i in range(self.batch_size)]


def pad_rows(rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded `input_ids` [R, T] and `labels` [R, T], int64; -100 where nothing is to be predicted."""
    width = max(len(p) + len(a) for p, a in rows)
    ids = [p + a + [pad] * (width - len(p) - len(a)) for p, a in rows]
    labels = [[IGNORED] * len(p) + a + [IGNORED] * (width - len(p) - len(a)) for p, a in rows]
    return torch.tensor(ids), torch.tensor(labels)
