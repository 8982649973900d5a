"""Two scores of a language model on a task: likelihood of the choices, and greedy answers compared word for word.

Both are always given: a model that knows the task but not the format fails the second, one that only knows the format
gains nothing on the first. Axis legend: E example, T text token, V vocabulary, A answer token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...datamodules.dnd.examples import Example
from ...datamodules.dnd.text import TextFormat


@dataclass(frozen=True)
class Score:
    """Accuracies over the scored examples, and their number. `choice` is None where no example has choices."""

    choice: float | None
    exact_match: float
    num_examples: int


@torch.no_grad()
def score(
    model: Any,
    tokenizer: Any,
    form: TextFormat,
    examples: Sequence[Example],
    *,
    shots: Sequence[Example] = (),
    hint: str = "",
    batch_size: int = 40,
) -> Score:
    """Score a causal language model.

    Args:
        model: a Hugging Face causal language model, adapter included if there is one.
        tokenizer: its tokenizer.
        form: the chat format.
        examples: what to score on; all have choices, or none counts for `choice`.
        shots: solved examples, put before each prompt as turns of the chat (in-context learning).
        hint: a sentence on the answer's format put after each prompt.
        batch_size: examples at a time.
    """
    model.eval()
    right_choice = right_answer = 0
    with_choices = all(e.choices for e in examples)
    turns = ((form.prompt_ids(tokenizer, e.prompt), form.answer_ids(tokenizer, e.response)) for e in shots)
    solved = [token for prompt, answer in turns for token in (*prompt, *answer, *newline_ids(tokenizer))]
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        prompts = [solved + form.prompt_ids(tokenizer, f"{e.prompt}{hint}") for e in batch]
        ids_ET, mask_ET, cache = _read(model, tokenizer, prompts)
        if with_choices:
            right_choice += _choices(model, tokenizer, form, ids_ET, mask_ET, copy.deepcopy(cache), batch)
        right_answer += _exact_matches(model, tokenizer, form, ids_ET, mask_ET, cache, batch)
    count = len(examples)
    return Score(right_choice / count if with_choices else None, right_answer / count, count)


def newline_ids(tokenizer: Any) -> list[int]:
    """What stands between two turns of a chat."""
    ids: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    return ids


def normal(text: str) -> str:
    """What exact match ignores: case, outer white space, one final full stop, quotes around all."""
    return text.strip().removesuffix(".").strip("\"'").strip().lower()


def _left_padded(prompts: list[list[int]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(p) for p in prompts)
    ids_ET = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask_ET = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids_ET, mask_ET, (mask_ET.cumsum(1) - 1).clamp_min(0)


def _pad_id(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


def _read(model: Any, tokenizer: Any, prompts: list[list[int]]) -> tuple[Tensor, Tensor, Any]:
    """Prompts [E, T] left-padded, their mask, and the cache of all tokens but the last: both scores go on from it."""
    ids_ET, mask_ET, place_ET = (x.to(model.device) for x in _left_padded(prompts, _pad_id(tokenizer)))
    read = model(
        input_ids=ids_ET[:, :-1],
        attention_mask=mask_ET[:, :-1],
        position_ids=place_ET[:, :-1],
        use_cache=True,
        logits_to_keep=1,
    )
    return ids_ET, mask_ET, read.past_key_values


def _exact_matches(
    model: Any, tokenizer: Any, form: TextFormat, ids_ET: Tensor, mask_ET: Tensor, cache: Any, batch: Sequence[Example]
) -> int:
    longest = max(len(form.answer_ids(tokenizer, e.response)) for e in batch)
    out_ET = model.generate(
        input_ids=ids_ET,
        attention_mask=mask_ET,
        past_key_values=cache,
        max_new_tokens=longest + 2,
        do_sample=False,
        eos_token_id=form.end_id(tokenizer),
        pad_token_id=_pad_id(tokenizer),
        temperature=None,
        top_p=None,
        top_k=None,
    )
    answers = tokenizer.batch_decode(out_ET[:, ids_ET.shape[1] :], skip_special_tokens=True)
    return sum(normal(a) == normal(e.response) for a, e in zip(answers, batch, strict=True))


def _choices(
    model: Any, tokenizer: Any, form: TextFormat, ids_ET: Tensor, mask_ET: Tensor, cache: Any, batch: Sequence[Example]
) -> int:
    """Number of examples whose right answer has the largest summed log-likelihood, its end included."""
    answers = [[form.answer_ids(tokenizer, c) for c in e.choices] for e in batch]
    rows = torch.tensor([i for i, options in enumerate(answers) for _ in options], device=ids_ET.device)
    flat = [a for options in answers for a in options]
    width, pad = max(len(a) for a in flat), _pad_id(tokenizer)
    ids_EA = torch.tensor([a + [pad] * (width - len(a)) for a in flat], device=ids_ET.device)
    real_EA = torch.tensor([[1] * len(a) + [0] * (width - len(a)) for a in flat], device=ids_ET.device)
    cache.batch_select_indices(rows)
    # what is read: the prompt's last token and each answer but its last token; what is predicted: each answer
    read = model(
        input_ids=torch.cat([ids_ET[rows, -1:], ids_EA[:, :-1]], 1),
        attention_mask=torch.cat([mask_ET[rows], real_EA[:, :-1]], 1),
        position_ids=mask_ET[rows].sum(1, keepdim=True) - 1 + torch.arange(width, device=ids_ET.device),
        past_key_values=cache,
        use_cache=True,
    )
    chosen_EA = read.logits.gather(-1, ids_EA.unsqueeze(-1)).squeeze(-1).float() - read.logits.float().logsumexp(-1)
    total_E = (chosen_EA * real_EA).sum(1)
    found = (total_E[rows == i].argmax() for i in range(len(batch)))
    return sum(e.choices[int(best)] == e.response for e, best in zip(batch, found, strict=True))
