"""Wan, Flux, HunyuanVideo and CogVideoX at small random sizes through every backend, by name, with and without a
plan."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from diffusers import (
    CogVideoXTransformer3DModel,
    FluxTransformer2DModel,
    HunyuanVideoTransformer3DModel,
    WanTransformer3DModel,
)

from fulgurite.kernels import api
from fulgurite.kernels.adapters.cogvideox import set_cogvideox_attention
from fulgurite.kernels.adapters.dispatcher import register_in_diffusers
from fulgurite.kernels.adapters.follow import attention_layers, follow, kind_of
from fulgurite.kernels.api import AttentionBackend, make_backend
from fulgurite.kernels.paro.backend import ParoAttention
from fulgurite.kernels.paro.plan import Plan, PlanMeta, forced_blocks, pack
from fulgurite.kernels.place import NO_LAYER
from fulgurite.registry import UserError

HEADS, TEXT = 2, 5
# float32: backends differ in the order of sums; int8 rounds q, k, p and v in every layer
TOLERANCE = {"reference": 1e-5, "sdpa": 1e-5, "paro float": 1e-5, "paro int8": 0.05}


def wan(times: int = 1) -> tuple[torch.nn.Module, dict[str, Any]]:
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=HEADS, attention_head_dim=16, in_channels=4, out_channels=4,
        text_dim=12, freq_dim=16, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip
    return model, {
        "hidden_states": torch.randn(1, 4, 3, 12 * times, 16 * times),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, TEXT, 12),
    }


def flux(times: int = 1) -> tuple[torch.nn.Module, dict[str, Any]]:
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=HEADS, joint_attention_dim=12, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    rows, columns = torch.meshgrid(torch.arange(12 * times), torch.arange(12 * times), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).view(-1, 3).float()
    return model, {
        "hidden_states": torch.randn(1, len(places), 4),
        "encoder_hidden_states": torch.randn(1, TEXT, 12),
        "pooled_projections": torch.randn(1, 8),
        "timestep": torch.tensor([0.5]),
        "img_ids": places,
        "txt_ids": torch.zeros(TEXT, 3),
    }


def hunyuan(times: int = 1) -> tuple[torch.nn.Module, dict[str, Any]]:
    model = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=HEADS, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=False,
        text_embed_dim=12, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    return model, {
        "hidden_states": torch.randn(1, 4, 3, 12 * times, 16 * times),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, TEXT, 12),
        "encoder_attention_mask": torch.tensor([[True] * 3 + [False] * 2]),
        "pooled_projections": torch.randn(1, 8),
    }


def cogvideox(times: int = 1) -> tuple[torch.nn.Module, dict[str, Any]]:
    model = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8,
        text_embed_dim=12, num_layers=2, sample_width=16 * times, sample_height=12 * times, sample_frames=9,
        patch_size=2, temporal_compression_ratio=4, max_text_seq_length=TEXT,
    )  # fmt: skip
    return model, {
        "hidden_states": torch.randn(1, 3, 4, 12 * times, 16 * times),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, TEXT, 12),
    }


MODELS: dict[str, tuple[Callable[..., tuple[torch.nn.Module, dict[str, Any]]], tuple[int, ...], int, str]] = {
    "wan": (wan, (3, 6, 8), 0, "prefix"),
    "flux": (flux, (12, 12), TEXT, "prefix"),
    "hunyuan": (hunyuan, (3, 6, 8), TEXT, "suffix"),
    "cogvideox": (cogvideox, (3, 6, 8), TEXT, "prefix"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    torch.set_num_threads(1)
    torch.manual_seed(0)
    api._told.clear()
    active = _AttentionBackendRegistry._active_backend
    yield
    _AttentionBackendRegistry.set_active_backend(active)


def make_plan(name: str, share: float, times: int = 1) -> Plan:
    """Random orders and masks in two bins for a model of two layers, at a picture `times` as high and wide."""
    _, grid, text, side = MODELS[name]
    grid = (*grid[:-2], grid[-2] * times, grid[-1] * times)
    meta = PlanMeta(grid, text, side, (250.0 if name != "flux" else 0.25,))
    size = -(-meta.layout.num_tokens // 64)
    forced = forced_blocks(meta.layout)
    keep = (torch.rand(2, 2, HEADS, size, size) < share) | forced | forced[:, None]
    ones, metric = torch.ones(2, 2, HEADS), torch.ones(2, HEADS, len(meta.layout.orders))
    orders = torch.randint(len(meta.layout.orders), (2, HEADS)).to(torch.uint8)
    density, empty = keep.float().mean((3, 4)), torch.zeros(2, HEADS, dtype=torch.bool)
    return Plan(meta, pack(keep), orders, empty, density, ones, ones, metric, metric, metric)


@torch.no_grad()
def run(model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
    return model(**inputs, return_dict=False)[0]


def switch(name: str, model: Any, backend: str, **options: Any) -> AttentionBackend:
    """The model's attention goes to one of our backends, as a user would do it."""
    if name == "cogvideox":
        made = make_backend(backend, **options)
        set_cogvideox_attention(model, made)
        return made
    made = register_in_diffusers(backend, **options)
    model.set_attention_backend(backend)
    return made


@pytest.mark.parametrize("backend", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_the_model_s_own_attention(name: str, backend: str) -> None:
    model, inputs = MODELS[name][0]()
    own = run(model.eval(), inputs)
    kind, _, precision = backend.partition(" ")
    options = {"plan": make_plan(name, 2.0), "precision": precision} if precision else {}
    made = switch(name, model, kind, **options)
    assert isinstance(made, AttentionBackend)
    if isinstance(made, ParoAttention):
        calls = count_calls(made)
        with follow(model, made.place):
            given = run(model, inputs)
        assert calls == [0, 1]  # both layers, and neither cross-attention nor the text's own
    else:
        given = run(model, inputs)
    assert (given - own).norm() / own.norm() < TOLERANCE[backend]


def count_calls(backend: ParoAttention) -> list[int]:
    """The list to which every call that the plan serves adds its layer."""
    seen: list[int] = []
    whole = type(backend).__call__

    class Counting(type(backend)):  # type: ignore[misc]
        def __call__(self, *tensors: Any, **options: Any) -> Tensor:
            seen.append(self.place.layer)
            return whole(self, *tensors, **options)

    backend.__class__ = Counting
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_a_sparse_plan_changes_the_output_by_layer_and_bin(name: str) -> None:
    model, inputs = MODELS[name][0]()
    own = run(model.eval(), inputs)
    made = switch(name, model, "paro", plan=make_plan(name, 0.3), precision="float")
    assert isinstance(made, ParoAttention)
    with follow(model, made.place) as place:
        early = run(model, inputs)
        assert place.grid in (None, MODELS[name][1]) and place.layer == NO_LAYER
        late = run(model, {**inputs, "timestep": inputs["timestep"] * 0})
    assert (early - own).norm() / own.norm() > 1e-4
    assert made.place.grid is None and made.place.timestep is None
    api._told.clear()
    with pytest.warns(UserWarning, match="serves the layers of its plan"):
        unfollowed = run(model, inputs)  # without hooks: dense, with a warning
    torch.testing.assert_close(unfollowed, own, atol=1e-5, rtol=1e-5)
    assert not torch.equal(early, late)


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_plan_falls_back_visibly(name: str) -> None:
    other = {"wan": "cogvideox", "cogvideox": "wan", "flux": "hunyuan", "hunyuan": "flux"}[name]
    model, inputs = MODELS[name][0]()
    own = run(model.eval(), inputs)
    made = switch(name, model, "paro", plan=make_plan(other, 0.3))
    assert isinstance(made, ParoAttention)
    with (
        follow(model, made.place),
        pytest.warns(UserWarning, match="has a plan (for grid|with text as) .*'sdpa' takes its place"),
    ):
        given = run(model, inputs)
    torch.testing.assert_close(given, own, atol=1e-5, rtol=1e-5)


def test_cross_attention_falls_back_visibly() -> None:
    model, inputs = wan()
    made = switch("wan", model.eval(), "paro", plan=make_plan("wan", 0.3))
    assert isinstance(made, ParoAttention)
    with follow(model, made.place), pytest.warns(UserWarning, match="'paro' is for self-attention"):
        run(model, inputs)
    with follow(model, made.place), warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, inputs)  # once


def test_the_dispatcher_s_context_reaches_it_too() -> None:
    from diffusers.models.attention_dispatch import attention_backend

    model, inputs = wan()
    own = run(model.eval(), inputs)
    made = register_in_diffusers("paro", plan=make_plan("wan", 0.3), precision="float")
    assert isinstance(made, ParoAttention)
    with follow(model, made.place), attention_backend("paro"):
        given = run(model, inputs)
    assert not torch.allclose(given, own, atol=1e-5)
    torch.testing.assert_close(run(model, inputs), own)


def test_what_the_dispatcher_may_not_ask_and_names_that_are_taken() -> None:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    register_in_diffusers("reference")
    q = torch.randn(1, 9, 2, 8)
    dispatched: Any = dispatch_attention_fn
    assert dispatched(q, q, q, backend="reference").shape == q.shape
    grouped = dispatched(q, q[:, :, :1], q[:, :, :1], enable_gqa=True, backend="reference")
    torch.testing.assert_close(grouped, dispatched(q, *[q[:, :, :1].expand_as(q)] * 2, backend="reference"))
    for options in ({"is_causal": True}, {"dropout_p": 0.1}, {"attn_mask": torch.zeros(1, 1, 9, 9)}):
        with pytest.raises(UserError, match="takes no dropout, causal call or additive mask"):
            dispatched(q, q, q, backend="reference", **options)
    with pytest.raises(UserError, match="no attention named"):
        register_in_diffusers("paroo")


def test_layers_in_running_order_and_unknown_models() -> None:
    model, _ = flux()
    assert list(attention_layers(model)) == ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"]
    assert kind_of(model).side == "prefix"
    with pytest.raises(UserError, match="Linear: its attention layers are not known here"):
        kind_of(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
def test_compiled_whole_it_follows_layers_and_timesteps(name: str) -> None:
    model, inputs = MODELS[name][0]()
    made = switch(name, model.eval(), "paro", plan=make_plan(name, 0.3), precision="float")
    assert isinstance(made, ParoAttention)
    graphs: list[Any] = []

    def count(graph: Any, example_inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with follow(model, made.place):
        eager = [run(model, {**inputs, "timestep": torch.tensor([t])}) for t in (500, 10)]
        torch._dynamo.reset()
        compiled = torch.compile(model, backend=count)
        given = [run(compiled, {**inputs, "timestep": torch.tensor([t])}) for t in (500, 10)]
        before = len(graphs)
        run(compiled, {**inputs, "timestep": torch.tensor([700])})
    for mine, wanted in zip(given, eager, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
    assert len(graphs) == before
