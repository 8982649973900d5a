"""Sparse plans and 4 bits in diffusers' own transformers, against the reference under the same plan; calls with masks.

test_diffusers_models has the dense agreement of every backend, wrong plans, cross-attention and torch.compile.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from diffusers.models.attention_dispatch import dispatch_attention_fn

from fulgurite.kernels.adapters.cogvideox import set_cogvideox_attention
from fulgurite.kernels.adapters.dispatcher import register_in_diffusers
from fulgurite.kernels.adapters.follow import attention_layers, follow
from fulgurite.kernels.api import AttentionBackend, BlockMask, attention, make_backend
from fulgurite.kernels.masks import Mask
from fulgurite.kernels.paro.backend import ParoAttention
from fulgurite.kernels.paro.orders import inverse
from fulgurite.kernels.paro.plan import Plan
from fulgurite.kernels.place import NO_LAYER, Place

from .test_diffusers_models import MODELS, cogvideox, make_plan, quiet, run, switch  # noqa: F401  (a fixture)

# relative L2 of the model's output, float32, random weights: two layers whose q, k, p and v are rounded
SPARSE = {"float": 1e-6, "int8": 1e-3, "int4": 0.02}


class Written(AttentionBackend):
    """A plan's attention written out: its blocks as a mask of tokens in their own order, by the reference."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.place, self.served = plan, Place(), 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> Tensor:
        if self.place.layer == NO_LAYER:
            return attention(q, k, v, mask=mask, scale=scale, backend="sdpa")
        self.served += 1
        assert self.place.timestep is not None
        time_bin = int(float(self.place.timestep[0]) < self.plan.meta.edges[0])
        back = inverse(self.plan.meta.layout.table()[self.plan.orders[self.place.layer].long()])
        keep = BlockMask(self.plan.keep(time_bin, self.place.layer)).dense(q.shape[2], q.shape[2])[0]
        own = torch.stack([keep[h][back[h]][:, back[h]] for h in range(q.shape[1])])[None]
        assert mask is None or isinstance(mask, Tensor)
        return attention(q, k, v, mask=own if mask is None else own & mask, scale=scale, backend="reference")


def hand(name: str, model: Any, backend: AttentionBackend) -> None:
    if name == "cogvideox":
        set_cogvideox_attention(model, backend)
    else:
        register_in_diffusers("written", backend)
        model.set_attention_backend("written")


@pytest.mark.parametrize("name", MODELS)
def test_a_half_kept_is_the_reference_under_the_same_plan(name: str) -> None:
    model, inputs = MODELS[name][0](times=2)
    own = run(model.eval(), inputs)
    plan = make_plan(name, 0.25, times=2)
    assert 0.35 < plan.density.mean() < 0.6
    for timestep in (inputs["timestep"], inputs["timestep"] * 0):
        given = {**inputs, "timestep": timestep}
        written = Written(plan)
        hand(name, model, written)
        with follow(model, written.place):
            wanted = run(model, given)
        assert written.served == len(attention_layers(model))
        assert (wanted - own).norm() / own.norm() > 2 * SPARSE["int8"]  # the plan shows
        for precision, tolerance in SPARSE.items():
            made = switch(name, model, "int4" if precision == "int4" else "paro", plan=plan, precision=precision)
            assert isinstance(made, ParoAttention)
            with follow(model, made.place):
                found = run(model, given)
            assert (found - wanted).norm() / wanted.norm() < tolerance, precision


@pytest.mark.parametrize("name", MODELS)
def test_four_bits_with_all_blocks_are_near_the_model_s_own_attention(name: str) -> None:
    model, inputs = MODELS[name][0]()
    own = run(model.eval(), inputs)
    errors = []
    for backend in ("paro", "int4"):
        made = switch(name, model, backend, plan=make_plan(name, 2.0))
        assert isinstance(made, ParoAttention)
        with follow(model, made.place):
            errors.append(float((run(model, inputs) - own).norm() / own.norm()))
    assert errors[0] < errors[1] < SPARSE["int4"]


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_over_queries_goes_to_sdpa_visibly(name: str) -> None:
    plan = make_plan(name, 0.3)
    size = plan.meta.layout.num_tokens
    q, k, v = (torch.randn(1, size, 2, 16) for _ in range(3))
    causal = torch.ones(size, size, dtype=torch.bool).tril()[None, None]
    by_hand = [t.transpose(1, 2) for t in (q, k, v)]
    wanted = attention(*by_hand, mask=causal, backend="sdpa")
    backend = make_backend("paro", plan=plan)
    assert isinstance(backend, ParoAttention)
    backend.place.layer, backend.place.timestep, backend.place.grid = 0, torch.zeros(1), plan.meta.grid
    with pytest.warns(UserWarning, match="'paro' takes no dense mask; 'sdpa' takes its place"):
        if name == "cogvideox":  # which does not ask the dispatcher
            given = attention(*by_hand, mask=causal, backend=backend)
        else:
            register_in_diffusers("paro", backend)
            dispatched: Any = dispatch_attention_fn
            given = dispatched(q, k, v, attn_mask=causal, backend="paro").transpose(1, 2)
    torch.testing.assert_close(given, wanted)


def test_cogvideox_under_a_mask_is_its_own_attention_and_says_so() -> None:
    model, inputs = cogvideox()
    layer = attention_layers(model.eval())["transformer_blocks.0.attn1"]
    hidden, text = torch.randn(1, 144, 32), torch.randn(1, inputs["encoder_hidden_states"].shape[1], 32)
    size = hidden.shape[1] + text.shape[1]
    mask = torch.ones(size, size, dtype=torch.bool).tril()[None]
    own = layer(hidden, encoder_hidden_states=text, attention_mask=torch.zeros(1, size, size).masked_fill(~mask, -1e9))
    made = switch("cogvideox", model, "paro", plan=make_plan("cogvideox", 0.3))
    assert isinstance(made, ParoAttention)
    with follow(model, made.place):
        made.place.timestep, made.place.grid = torch.zeros(1), (3, 6, 8)
        with pytest.warns(UserWarning, match="'paro' takes no dense mask"):
            given = layer(hidden, encoder_hidden_states=text, attention_mask=mask[:, None])
    for mine, wanted in zip(given, own, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
