"""diffusers' attention layers of HunyuanVideo, computed by `fulgurite.kernels`.

Axis legend: B batch, N token, L text token, H head, D head channel.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ...kernels.adapters.follow import attention_layers, follow
from ...kernels.adapters.serve import check_plan
from ...kernels.api import AttentionBackend, attention
from ...kernels.choice import AnyPlan, Choice, chosen_backends
from ...kernels.paro.backend import ParoAttention
from ...kernels.paro.plan import Plan
from ...kernels.place import Place
from ...registry import UserError

Rope = tuple[Tensor, Tensor]

TOKEN_PIXELS = 16  # a side: 8 of the autoencoder, patches of 2


class GameCraftAttnProcessor:
    """Attention of the double blocks, the single blocks and the text refiner, through `kernels.api.attention`.

    Attributes:
        backend: the backend of this layer; None follows `use_attention`.
    """

    def __init__(self, backend: AttentionBackend | None = None) -> None:
        self.backend = backend

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rope | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Joint attention over video and text tokens.

        Args:
            attn: the layer, with its projections and norms.
            hidden_states: video tokens [B, N, C]; in the refiner, text tokens.
            encoder_hidden_states: text tokens [B, L, C]; None in the refiner.
            attention_mask: bool [B, 1, 1 or N, N + L], True = keep; None = all.
            image_rotary_emb: cosines and sines [N, D] for the video tokens.

        Returns:
            Video and text tokens; the refiner gets its tokens alone.
        """
        text = encoder_hidden_states
        two_streams = text is not None and attn.add_q_proj is not None
        x = torch.cat([hidden_states, text], 1) if text is not None and not two_streams else hidden_states
        q, k, v = (linear(x).unflatten(2, (attn.heads, -1)) for linear in (attn.to_q, attn.to_k, attn.to_v))
        q, k = _norm(attn.norm_q, q), _norm(attn.norm_k, k)
        if image_rotary_emb is not None:
            q, k = _rotate(q, image_rotary_emb), _rotate(k, image_rotary_emb)
        if two_streams:
            text_q, text_k, text_v = (
                linear(text).unflatten(2, (attn.heads, -1))
                for linear in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            q = torch.cat([q, _norm(attn.norm_added_q, text_q)], 1)
            k = torch.cat([k, _norm(attn.norm_added_k, text_k)], 1)
            v = torch.cat([v, text_v], 1)
        q_BHND, k_BHND, v_BHND = (t.transpose(1, 2) for t in (q, k, v))
        out = attention(q_BHND, k_BHND, v_BHND, mask=attention_mask, backend=self.backend)
        out = out.transpose(1, 2).flatten(2)
        if text is None:
            return attn.to_out[1](attn.to_out[0](out))
        video, text = out[:, : -text.shape[1]], out[:, -text.shape[1] :]
        if attn.to_out is not None:
            video = attn.to_out[1](attn.to_out[0](video))
        if attn.to_add_out is not None:
            text = attn.to_add_out(text)
        return video, text


def set_attention(
    model: nn.Module, choice: Choice | None, plan: AnyPlan | None = None, made_for: nn.Module | None = None
) -> list[follow]:
    """Give every attention layer of a diffusers model a processor of its own, with its backend.

    Args:
        model: a model whose layers are diffusers' `Attention`.
        choice, plan, made_for: see `GameCraftTransformer.set_attention`.

    Returns:
        What follows the model for backends with a plan, until its `remove`.

    Raises:
        UserError: as `chosen_backends` and `check_plan`.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    backends = chosen_backends(list(layers), attention_layers(model), choice, plan)
    distinct = list({id(backend): backend for backend in backends.values()}.values())
    for backend in distinct:
        check_plan(model, backend, made_for)
        if isinstance(backend, ParoAttention):
            backend.move(next(model.parameters()).device)
    for name, layer in layers.items():
        processor: Any = GameCraftAttnProcessor(backends.get(name))
        layer.set_processor(processor)
    places = [getattr(backend, "place", None) for backend in distinct]
    return [follow(model, place) for place in places if isinstance(place, Place)]


def check_grid(plan: Plan, height: int, width: int) -> None:
    """See that a plan's picture has as many tokens as one of these pixels, 16 by 16 each.

    Raises:
        UserError: if not.
    """
    wanted, grid = (height // TOKEN_PIXELS, width // TOKEN_PIXELS), plan.meta.layout.grid
    if grid[-2:] != wanted:
        raise UserError(
            f"the plan is for pictures of {grid[-2] * TOKEN_PIXELS}x{grid[-1] * TOKEN_PIXELS}, these have "
            f"{height}x{width}\nMake one: fulgurite paro calibrate."
        )


def _norm(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _rotate(x_BNHD: Tensor, rope: Rope) -> Tensor:
    """Rotary positions in float32 on the first tokens, as many as `rope` has; those after it (text) stay."""
    cos_N1D, sin_N1D = (t.unsqueeze(1) for t in rope)
    video, text = x_BNHD[:, : cos_N1D.shape[0]], x_BNHD[:, cos_N1D.shape[0] :]
    left, right = video.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-right, left], -1).flatten(-2)
    rotated = (video.float() * cos_N1D + turned.float() * sin_N1D).to(x_BNHD.dtype)
    return rotated if text.shape[1] == 0 else torch.cat([rotated, text], 1)
