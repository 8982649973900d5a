"""CogVideoX in diffusers, which does not ask the dispatcher: a processor for its attention layers.

Axis legend: B batch, N token (text first), H head, D head channel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from ..api import AttentionBackend, attention
from .follow import attention_layers


class CogVideoXProcessor:
    """Joint attention of text and video tokens through `kernels.api.attention`.

    Args:
        backend: the backend; None follows `use_attention`.
    """

    def __init__(self, backend: AttentionBackend | None = None) -> None:
        self.backend = backend

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention over text, then video, as diffusers' own processor computes it.

        Args:
            attn: the layer.
            hidden_states: video tokens [B, N, C].
            encoder_hidden_states: text tokens [B, L, C].
            attention_mask: bool, broadcast to [B, H, N, N], True = keep; None = all.
            image_rotary_emb: cosines and sines for the video tokens.

        Returns:
            Video tokens and text tokens.
        """
        num_text = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], 1)
        projected = (linear(joint) for linear in (attn.to_q, attn.to_k, attn.to_v))
        q, k, v = (t.unflatten(2, (attn.heads, -1)).transpose(1, 2) for t in projected)
        q, k = (t if norm is None else norm(t) for t, norm in ((q, attn.norm_q), (k, attn.norm_k)))
        if image_rotary_emb is not None:
            rope: Any = image_rotary_emb  # diffusers' own hint says one tensor
            q, k = (
                torch.cat([t[:, :, :num_text], cast(Tensor, apply_rotary_emb(t[:, :, num_text:], rope))], 2)
                for t in (q, k)
            )
        out_BHND = attention(q, k, v, mask=attention_mask, backend=self.backend)
        out = attn.to_out[1](attn.to_out[0](out_BHND.transpose(1, 2).flatten(2)))
        return out[:, num_text:], out[:, :num_text]


def set_cogvideox_attention(transformer: nn.Module, backend: AttentionBackend | None) -> None:
    """Give every attention layer of a CogVideoXTransformer3DModel the processor with this backend.

    Raises:
        UserError: for another class of model.
    """
    for layer in attention_layers(transformer).values():
        processor: Any = CogVideoXProcessor(backend)
        layer.set_processor(processor)  # type: ignore[operator]
