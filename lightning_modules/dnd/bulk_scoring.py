"""Scores of many adapters on one task, all in one forward pass.

The same two scores as in scoring.py: likelihood of the choices, and exact match. Exact match is teacher-forced here:
each of the right answer's tokens has to be the most likely one after the tokens before, which is what greedy decoding
asks for too, and needs no loop. Axis legend: K adapter, E example, P prompt row, T text token, A answer token, C answer
row, S selected token, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...datamodules.dnd.examples import Example
from ...datamodules.dnd.text import TextFormat
from .batched_lora import BatchedLoRA, Stack
from .scoring import newline_ids

HEAD_ROWS = 8192  # tokens whose logits are made at once


@dataclass(frozen=True)
class BulkScore:
    """Right or wrong, adapter by adapter: bool [K, E] each. `choice_KE` is None where no example has choices."""

    choice_KE: Tensor | None
    exact_KE: Tensor


@torch.no_grad()
def score_together(
    model: BatchedLoRA, stack: Stack | None, form: TextFormat, examples: Sequence[Example], *,
    shots: Sequence[Example] = (), hint: str = "", max_length: int = 512, tokens_at_once: int = 65536,
) -> BulkScore:  # fmt: skip
    """Score K adapters (or the base model alone) on a task's examples.

    Args:
        model: base model.
        stack: K adapters; None for the base model, which gives one row.
        form: the chat format.
        examples: what to score on; all have choices, or none counts for `choice`.
        shots: solved examples, put before each prompt as turns of the chat.
        hint: a sentence put after each prompt.
        max_length: tokens of a prompt; a longer one loses its beginning.
        tokens_at_once: prompt tokens of a batch over all adapters.
    """
    num = 1 if stack is None else len(next(iter(stack.values())))
    tokenizer, with_choices = model.tokenizer, all(e.choices for e in examples)
    turns = ((form.prompt_ids(tokenizer, e.prompt), form.answer_ids(tokenizer, e.response)) for e in shots)
    solved = [token for prompt, answer in turns for token in (*prompt, *answer, *newline_ids(tokenizer))]
    prompts = [(solved + form.prompt_ids(tokenizer, f"{e.prompt}{hint}"))[-max_length:] for e in examples]
    options = [e.choices if with_choices else (e.response,) for e in examples]
    answers = [[form.answer_ids(tokenizer, c) for c in choices] for choices in options]
    chosen_KE = torch.zeros(num, len(examples), dtype=torch.bool)
    exact_KE = torch.zeros(num, len(examples), dtype=torch.bool)
    model.set(stack)
    for batch in _batches(prompts, answers, max(1, tokens_at_once // num)):
        total_KC, greedy_KC = _read(model, num, [prompts[i] for i in batch], [answers[i] for i in batch])
        start = 0
        for i in batch:
            stop, right = start + len(answers[i]), options[i].index(examples[i].response)
            chosen_KE[:, i] = total_KC[:, start:stop].argmax(1) == right
            exact_KE[:, i] = greedy_KC[:, start + right]
            start = stop
    model.set(None)
    return BulkScore(chosen_KE if with_choices else None, exact_KE)


def _batches(prompts: Sequence[list[int]], answers: Sequence[list[list[int]]], budget: int) -> list[list[int]]:
    """Examples of similar lengths, so many that prompts and answers stay within the budget of tokens."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches: list[list[int]] = [[]]
    spent = 0
    for i in order:
        cost = len(prompts[i]) * (1 + len(answers[i]) // 2)  # the cache is copied for each answer
        if batches[-1] and spent + cost > budget:
            batches.append([])
            spent = 0
        batches[-1].append(i)
        spent += cost
    return batches


def _read(
    model: BatchedLoRA, num: int, prompts: list[list[int]], answers: list[list[list[int]]]
) -> tuple[Tensor, Tensor]:
    """Summed log-likelihood, and whether each token was the most likely one, of each answer: [K, C] on the CPU."""
    device, decoder = model.device, model.model.model
    width = max(len(p) for p in prompts)
    ids_PT = torch.tensor([[model.pad] * (width - len(p)) + p for p in prompts], device=device).repeat(num, 1)
    mask_PT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device).repeat(num, 1)
    place_PT = (mask_PT.cumsum(1) - 1).clamp_min(0)
    read: Any = decoder(
        input_ids=ids_PT[:, :-1], attention_mask=mask_PT[:, :-1], position_ids=place_PT[:, :-1], use_cache=True
    )
    flat = [a for options in answers for a in options]
    owner = torch.tensor([i for i, options in enumerate(answers) for _ in options], device=device)
    row_C = (torch.arange(num, device=device)[:, None] * len(prompts) + owner).flatten()
    longest = max(len(a) for a in flat)
    ids_CA = torch.tensor([a + [model.pad] * (longest - len(a)) for a in flat], device=device).repeat(num, 1)
    real_CA = torch.tensor([[1] * len(a) + [0] * (longest - len(a)) for a in flat], device=device).repeat(num, 1)
    cache = read.past_key_values
    cache.batch_select_indices(row_C)
    hidden_CAD = decoder(
        input_ids=torch.cat([ids_PT[row_C, -1:], ids_CA[:, :-1]], 1),
        attention_mask=torch.cat([mask_PT[row_C], real_CA[:, :-1]], 1),
        position_ids=mask_PT[row_C].sum(1, keepdim=True) - 1 + torch.arange(longest, device=device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    place_S = real_CA.flatten().nonzero()[:, 0]
    hidden_SD, wanted_S = hidden_CAD.flatten(0, 1)[place_S], ids_CA.flatten()[place_S]
    likely, best = [], []
    for start in range(0, len(place_S), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        logits_SV = model.model.lm_head(hidden_SD[part]).float()
        likely.append(-torch.nn.functional.cross_entropy(logits_SV, wanted_S[part], reduction="none"))
        best.append(logits_SV.argmax(1) == wanted_S[part])
    row_S = place_S // longest
    zero_C = torch.zeros(len(ids_CA), device=device)
    total_C = zero_C.index_add(0, row_S, torch.cat(likely))
    missed_C = zero_C.index_add(0, row_S, (~torch.cat(best)).float())
    return total_C.view(num, -1).cpu(), (missed_C == 0).view(num, -1).cpu()
