"""The backend `auto`: its table's own figures, shapes between them, devices that nobody measured."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fulgurite.kernels import api
from fulgurite.kernels.api import attention, make_backend, use_attention
from fulgurite.kernels.bench.contest import SHAPES
from fulgurite.kernels.paro import auto
from fulgurite.kernels.paro.auto import TABLE, AutoAttention, Measured, faster, measured_on
from fulgurite.kernels.paro.plan import Plan

from .test_plan import make_plan

H200 = "NVIDIA H200"
ROWS = json.loads(TABLE.read_text(encoding="utf-8"))["devices"][H200]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()
    api._told.clear()
    auto.tell.__globals__["_told"].clear()
    yield
    measured_on.cache_clear()


@pytest.mark.parametrize("row", ROWS, ids=[row["shape"] for row in ROWS])
def test_at_what_was_measured_it_takes_what_was_faster(row) -> None:
    shape = SHAPES[row["shape"]]
    assert (shape.heads, shape.tokens, shape.width) == (row["heads"], row["tokens"], row["width"])
    for density, paro_ms in row["paro_ms"].items():
        wanted = "paro" if paro_ms < row["dense_ms"] else "sdpa"
        assert faster(H200, row["heads"], row["tokens"], row["width"], float(density)) == (wanted, "")


def test_between_and_beyond() -> None:
    flux = (24, 4608, 128)
    assert (
        faster(H200, 24, 16 * 24 * 32, 64, 0.55)[0] == "paro" and faster(H200, 3, 16 * 24 * 32, 64, 0.55)[0] == "sdpa"
    )
    assert faster(H200, *flux, 0.75)[0] == "sdpa"  # 0.44 ms between its neighbours, against 0.41
    assert faster(H200, *flux, 0.4)[0] == "paro"
    assert faster(H200, 48, 4608, 128, 0.5)[0] == "paro"  # a batch of two: guidance
    assert faster(H200, 24, 119056, 128, 0.9)[0] == "paro"  # HunyuanVideo
    assert faster(H200, 4, 18 * 8 * 14 + 16, 64, 0.2)[0] == "sdpa"  # GameCraft's student at 128x224


def test_a_long_shape_foretells_another_within_an_eighth() -> None:
    """How far the cost model can be trusted: 480p's row against 720p's figures, and the other way round."""
    wan480, wan720 = (row for row in measured_on(H200) if row.tokens > 30_000)
    for known, asked in ((wan480, wan720), (wan720, wan480)):
        for density, paro_ms in asked.paro_ms.items():
            dense, paro = known.estimate(asked.heads, asked.tokens, density)
            assert dense == pytest.approx(asked.dense_ms, rel=0.125)
            assert paro == pytest.approx(paro_ms, rel=0.125)


def test_what_was_not_measured_is_dense_and_says_so() -> None:
    assert faster("NVIDIA A100", 24, 4608, 128, 0.2) == ("sdpa", "'paro' was not measured on NVIDIA A100")
    name, reason = faster(H200, 24, 4608, 96, 0.2)
    assert name == "sdpa" and "heads of 96 channels on NVIDIA H200" in reason


def placed(plan: Plan) -> AutoAttention:
    backend = make_backend("auto", plan=plan)
    assert isinstance(backend, AutoAttention)
    backend.place.layer, backend.place.timestep, backend.place.grid = 1, torch.tensor([500.0]), plan.meta.grid
    return backend


def inputs(plan: Plan) -> list[Tensor]:
    return [torch.randn(1, 3, plan.meta.layout.num_tokens, 16) for _ in range(3)]


def test_on_a_cpu_it_is_dense_with_one_warning() -> None:
    plan = make_plan()
    tensors = inputs(plan)
    with use_attention(placed(plan)):
        with pytest.warns(UserWarning, match="'auto' takes 'sdpa': 'paro' was not measured on cpu"):
            given = attention(*tensors)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            attention(*tensors)
    assert torch.equal(given, attention(*tensors, backend="sdpa"))


def test_where_it_was_measured_to_be_faster_it_is_paro_by_the_layer_s_density(monkeypatch) -> None:
    plan = make_plan(grid=(8, 8, 12))
    size = plan.meta.layout.num_tokens
    densities = plan.density.mean((0, 2)).tolist()
    between = sum(densities) / 2
    assert min(densities) < between < max(densities)
    # dense as fast as paro at the density between those of the two layers
    row = Measured(3, size, 16, between, {0.1: 0.1, 1.0: 1.0})
    monkeypatch.setattr(auto, "measured_on", lambda device: (row,))
    monkeypatch.setattr(auto, "kernels_for", lambda *call: ("hopper", ""))
    tensors, backend = inputs(plan), placed(plan)
    paro = make_backend("paro", plan=plan)
    paro.place.timestep = torch.tensor([500.0])
    for layer, density in enumerate(densities):
        backend.place.layer = paro.place.layer = layer
        wanted = paro if density < between else "sdpa"
        assert torch.equal(attention(*tensors, backend=backend), attention(*tensors, backend=wanted))
        trained = [t.clone().requires_grad_() for t in tensors]
        assert torch.equal(attention(*trained, backend=backend), attention(*tensors, backend="sdpa"))


def test_compiled_it_is_one_graph(monkeypatch) -> None:
    plan = make_plan()
    monkeypatch.setattr(auto, "measured_on", lambda device: (Measured(3, 151, 16, 9.0, {0.1: 0.1, 1.0: 1.0}),))
    monkeypatch.setattr(auto, "kernels_for", lambda *call: ("hopper", ""))
    tensors, backend = inputs(plan), placed(plan)
    wanted = attention(*tensors, backend=backend)
    compiled = torch.compile(lambda *t: attention(*t, backend=backend), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*tensors), wanted)


def test_diffusers_dispatcher_takes_it_by_name() -> None:
    pytest.importorskip("diffusers")
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    from fulgurite.kernels.adapters.dispatcher import register_in_diffusers

    plan = make_plan()
    backend = register_in_diffusers("auto", plan=plan)
    backend.place.layer, backend.place.timestep = 1, torch.tensor([500.0])
    q, k, v = (t.transpose(1, 2) for t in inputs(plan))
    with pytest.warns(UserWarning, match="'auto' takes 'sdpa'"):
        given = dispatch_attention_fn(q, k, v, backend="auto")
    wanted = attention(*(t.transpose(1, 2) for t in (q, k, v)), backend="sdpa")
    torch.testing.assert_close(given, wanted.transpose(1, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("heads", "on_h200"), [(3, "sdpa"), (24, "paro")])
def test_on_a_gpu_its_choice_computes_what_it_names(heads: int, on_h200: str) -> None:
    plan = make_plan(grid=(16, 24, 32), text=0, num_heads=heads)
    backend = placed(plan)
    backend.place.timestep = torch.tensor([500.0], device="cuda")
    shape = (1, heads, plan.meta.layout.num_tokens, 64)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in "qkv")
    chosen = backend.choose(q)
    if torch.cuda.get_device_name() == H200:
        assert chosen == on_h200
    paro = make_backend("paro", plan=plan)
    paro.place.layer, paro.place.timestep = 1, backend.place.timestep
    wanted = attention(q, k, v, backend=paro if chosen == "paro" else "sdpa")
    torch.testing.assert_close(attention(q, k, v, backend=backend), wanted, atol=1e-2, rtol=1e-2)
    compiled = torch.compile(lambda *t: attention(*t, backend=backend), fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), wanted, atol=1e-2, rtol=1e-2)
