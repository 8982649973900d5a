"""One token after the other through the text model, with keys and values in buffers of full length.

transformers' forward of a single token is mostly bookkeeping (masks, a cache that is copied as it grows), which for a
small policy is most of the time of an answer. The weights and the arithmetic are transformers'.

Axis legend: P prompt, R row at work (P x group, groups adjacent), N place in a prompt, S place in prompt and answer,
E feature, K key head, Q query head of a key head, D feature of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .positions import completion_positions


class Decoder:
    """Continues prompts that were read.

    Args:
        language: the text model.
        cache: transformers' cache of the prompts, filled.
        mask_PN: False on padding.
        next_position_P: position of the first token written.
        group_size: rows a prompt.
        max_new_tokens: room for so many tokens.
    """

    def __init__(
        self, language: Any, cache: Any, mask_PN: Tensor, next_position_P: Tensor, group_size: int, max_new_tokens: int
    ) -> None:
        self._language, self._written = language, mask_PN.shape[1]
        self._kept = [
            [_with_room(part, group_size, max_new_tokens) for part in (layer.keys, layer.values)]
            for layer in cache.layers
        ]
        self._mask_RS = F.pad(mask_PN.repeat_interleave(group_size, 0), (0, max_new_tokens), value=True)
        self._position_R = next_position_P.repeat_interleave(group_size)

    def __call__(self, token_R: Tensor) -> Tensor:
        """Hidden states after one more token of each row, [R, E]."""
        at, end = self._written, self._written + 1
        x_RE = self._language.embed_tokens(token_R)
        rotation = self._language.rotary_emb(x_RE, completion_positions(self._position_R, 1))
        cos_R1D, sin_R1D = rotation
        mask_R11S = self._mask_RS[:, None, None, :end]
        for layer, (keys_RKSD, values_RKSD) in zip(self._language.layers, self._kept, strict=True):
            attn, heads = layer.self_attn, keys_RKSD.shape[1]
            normed_RE = layer.input_layernorm(x_RE)
            q_RKQD, k_RK1D, v_RK1D = (
                project(normed_RE).unflatten(1, (heads, -1, attn.head_dim))
                for project in (attn.q_proj, attn.k_proj, attn.v_proj)
            )
            q_RKQD, k_RK1D = (
                _rotated(z, cos_R1D[:, None], sin_R1D[:, None]).to(keys_RKSD.dtype) for z in (q_RKQD, k_RK1D)
            )
            keys_RKSD[:, :, at], values_RKSD[:, :, at] = k_RK1D[:, :, 0], v_RK1D[:, :, 0]
            seen_RKQD = F.scaled_dot_product_attention(
                q_RKQD, keys_RKSD[:, :, :end], values_RKSD[:, :, :end], mask_R11S, scale=attn.scaling
            )
            x_RE = x_RE + attn.o_proj(seen_RKQD.flatten(1))
            x_RE = x_RE + layer.mlp(layer.post_attention_layernorm(x_RE))
        self._written, self._position_R = end, self._position_R + 1
        hidden_RE: Tensor = self._language.norm(x_RE)
        return hidden_RE

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone.

        Args:
            rows: their numbers, int64.
        """
        self._kept = [[part[rows] for part in pair] for pair in self._kept]
        self._mask_RS, self._position_R = self._mask_RS[rows], self._position_R[rows]


def _with_room(part_PKND: Tensor, group_size: int, max_new_tokens: int) -> Tensor:
    """Keys or values of each row, with zeros for what is still to be written, [R, K, S, D]."""
    prompts, heads, length, width = part_PKND.shape
    room = part_PKND.new_zeros(prompts, group_size, heads, length + max_new_tokens, width)
    room[..., :length, :] = part_PKND[:, None]
    return room.flatten(0, 1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
