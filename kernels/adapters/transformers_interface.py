"""Our backends in transformers: `model.set_attn_implementation("paro")` after `register_in_transformers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ..api import AttentionBackend, attention, make_backend


def register_in_transformers(name: str, **options: Any) -> AttentionBackend:
    """Make a backend an attention implementation of transformers, under its name.

    Args:
        name: a registered attention backend; `sdpa` is transformers' own name and stays theirs.
        options: its own, such as `plan`.

    Raises:
        UserError: for an unknown name or option.
    """
    backend = make_backend(name, **options)
    AttentionInterface.register(name, _Interface(backend))
    AttentionMaskInterface.register(name, sdpa_mask)
    return backend


class _Interface:
    """What transformers calls; layout [B, H, N, D] in, [B, N, H, D] out."""

    def __init__(self, backend: AttentionBackend) -> None:
        self._backend = backend

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        if dropout:
            raise ValueError(f"attention '{self._backend.name}' has no dropout; set the model's attention dropout to 0")
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        causal = is_causal if is_causal is not None else getattr(module, "is_causal", False)
        num_queries, num_keys = query.shape[2], key.shape[2]
        if attention_mask is None and causal and num_queries > 1:  # transformers leaves the plain causal mask out
            seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
            attention_mask = seen.tril(num_keys - num_queries)[None, None]
        elif attention_mask is not None:
            attention_mask = attention_mask[..., :num_keys]
        out = attention(query, key, value, mask=attention_mask, scale=scaling, backend=self._backend)
        return out.transpose(1, 2).contiguous(), None
