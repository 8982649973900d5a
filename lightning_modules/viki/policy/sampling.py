"""Writing answers: prompts are read once, and each is continued `group_size` times.

Axis legend: P prompt, N place in a prompt, G completion (P x group, groups adjacent), L place in a completion,
D feature, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .decoding import Decoder

_LOOK_EVERY = 4  # tokens between two looks whether all are done: each one waits for the GPU


def sample(
    language: Any,
    head: Any,
    embeds_PND: Tensor,
    mask_PN: Tensor,
    positions_APN: Tensor,
    next_position_P: Tensor,
    *,
    group_size: int,
    max_new_tokens: int,
    end: int,
    pad: int,
    temperature: float,
    generator: torch.Generator | None,
    greedy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens int64 [G, L], their mask and their log-probabilities float32, L at most `max_new_tokens`.

    Answers that ended are taken out of the work once half of what is left has ended.

    Args:
        language: the text model.
        head: hidden states to logits.
        embeds_PND: embedded prompts, padded on the left.
        mask_PN: False on padding.
        positions_APN: rotary positions.
        next_position_P: position of the first token written.
        group_size: answers a prompt.
        max_new_tokens: at most.
        end: token that ends an answer.
        pad: token that stands after it.
        temperature: logits are divided by it; log-probabilities are those of the divided ones.
        generator: draws, on the model's device; torch's own if None.
        greedy: take the likeliest token each time.
    """
    device = embeds_PND.device
    out = language(inputs_embeds=embeds_PND, attention_mask=mask_PN.long(), position_ids=positions_APN, use_cache=True)
    decode = Decoder(language, out.past_key_values, mask_PN, next_position_P, group_size, max_new_tokens)
    last_RD = out.last_hidden_state[:, -1].repeat_interleave(group_size, 0)
    count = len(last_RD)
    tokens_GL = torch.full((count, max_new_tokens), pad, device=device)
    log_probs_GL = torch.zeros(count, max_new_tokens, device=device)
    row_R = torch.arange(count, device=device)  # R: rows still at work, a subset of G
    done_R = torch.zeros(count, dtype=torch.bool, device=device)
    length = 0
    for length in range(1, max_new_tokens + 1):
        log_p_RV = F.log_softmax(head(last_RD).float() / temperature, -1)
        if greedy:
            token_R = log_p_RV.argmax(-1)
        else:
            noise_RV = torch.empty_like(log_p_RV).exponential_(generator=generator)
            token_R = (log_p_RV - noise_RV.log()).argmax(-1)
        token_R = torch.where(done_R, pad, token_R)
        tokens_GL[row_R, length - 1] = token_R
        chosen_R = log_p_RV.gather(1, token_R[:, None])[:, 0]
        log_probs_GL[row_R, length - 1] = torch.where(done_R, 0.0, chosen_R)
        done_R = done_R | (token_R == end)
        if length == max_new_tokens:
            break
        if length % _LOOK_EVERY == 0:
            left = int((~done_R).sum())
            if left == 0:
                break
            if left <= len(done_R) // 2:
                kept = (~done_R).nonzero()[:, 0]
                decode.keep(kept)
                row_R, done_R, token_R = row_R[kept], done_R[kept], token_R[kept]
        last_RD = decode(token_R)
    tokens_GL, log_probs_GL = tokens_GL[:, :length], log_probs_GL[:, :length]
    ended_GL = (tokens_GL == end).long().cumsum(1)
    mask_GL = (ended_GL == 0) | ((ended_GL == 1) & (tokens_GL == end))
    return tokens_GL, mask_GL, log_probs_GL
