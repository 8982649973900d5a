"""Prompts and responses as token ids for a causal language model. Axis legend: B batch, T text token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...registry import UserError
from .examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
CHATML_END = "<|im_end|>"
IGNORED = -100


@dataclass(frozen=True)
class TextFormat:
    """How a prompt becomes the text that the model reads, and what ends its answer.

    Attributes:
        template: text with `{prompt}` in it; an empty string means the tokenizer's own chat template.
        end: what follows the response; learned and scored with it. Empty: the tokenizer's end-of-sequence token.
    """

    template: str = CHATML
    end: str = CHATML_END

    def prompt_ids(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
        """Token ids up to where the answer begins."""
        if self.template:
            return _ids(tokenizer, self.template.replace("{prompt}", prompt))
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return _ids(tokenizer, str(text))

    def answer_ids(self, tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
        """Token ids of the answer with its end."""
        return _ids(tokenizer, response + (self.end or str(tokenizer.eos_token)))

    def end_id(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Id of the token that ends an answer.

        Raises:
            UserError: if the tokenizer makes more than one token of it: the format is another model's.
        """
        ids = _ids(tokenizer, self.end or str(tokenizer.eos_token))
        if len(ids) != 1:
            raise UserError(
                f"data.end: {self.end!r} is {len(ids)} tokens for this base model: its chat format is another one\n"
                "Set data.template and data.end to '' for the tokenizer's own, or to the model's."
            )
        return ids[0]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def collate(
    tokenizer: PreTrainedTokenizerBase, form: TextFormat, examples: Sequence[Example], max_length: int
) -> dict[str, Tensor]:
    """Right-padded training batch; under causal attention the padding needs no mask.

    Args:
        tokenizer: of the base model.
        form: the chat format.
        examples: prompts with responses.
        max_length: tokens kept; a longer prompt loses its beginning, never the answer.

    Returns:
        `input_ids` [B, T] int64 and `labels` [B, T] int64, -100 where nothing is to be predicted.
    """
    rows: list[tuple[list[int], list[int]]] = []
    for example in examples:
        answer = form.answer_ids(tokenizer, example.response)[:max_length]
        prompt = form.prompt_ids(tokenizer, example.prompt)[-max(1, max_length - len(answer)) :]
        rows.append((prompt, answer))
    width = max(len(p) + len(a) for p, a in rows)
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = [p + a + [pad] * (width - len(p) - len(a)) for p, a in rows]
    labels = [[IGNORED] * len(p) + a + [IGNORED] * (width - len(p) - len(a)) for p, a in rows]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
