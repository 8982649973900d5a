"""The backends `paro` and `int4`: the plan's orders and masks by layer and timestep, refusals, gradients,
torch.compile."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fulgurite.kernels import api
from fulgurite.kernels.api import BlockMask, attention, capability, make_backend, use_attention
from fulgurite.kernels.paro.backend import ParoAttention
from fulgurite.kernels.paro.orders import inverse
from fulgurite.kernels.paro.plan import Plan
from fulgurite.registry import UserError

from .test_plan import make_plan

GRID, TEXT = (3, 6, 8), 7


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()
    api._told.clear()
    yield
    assert api._current is make_backend("sdpa")


def inputs(plan: Plan, batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(batch, 3, plan.meta.layout.num_tokens, 16, dtype=dtype) for _ in range(3)]


def placed(plan: Plan, precision: str = "float", layer: int = 1, timestep: float = 500.0) -> ParoAttention:
    backend = make_backend("paro", plan=plan, precision=precision)
    assert isinstance(backend, ParoAttention)
    backend.place.layer, backend.place.timestep, backend.place.grid = layer, torch.tensor([timestep]), plan.meta.grid
    return backend


def by_hand(plan: Plan, tensors: list[Tensor], layer: int, time_bin: int, mask: Tensor | None = None) -> Tensor:
    """Masked attention in the plan's order, the mask written out token by token in the tokens' own order."""
    perm = plan.meta.layout.table()[plan.orders[layer].long()]
    back, size = inverse(perm), tensors[0].shape[2]
    keep = BlockMask(plan.keep(time_bin, layer)).dense(size, size)[0]  # [H, N, M] in the plan's order
    own = torch.stack([keep[h][back[h]][:, back[h]] for h in range(3)])[None]
    return attention(*tensors, mask=own if mask is None else own & mask, backend="reference")


@pytest.mark.parametrize("side", ["prefix", "suffix"])
@pytest.mark.parametrize("timestep,time_bin", [(999.0, 0), (700.0, 0), (699.0, 1), (400.0, 1), (399.0, 2), (0.0, 2)])
@pytest.mark.parametrize("layer", [0, 1])
def test_orders_and_masks_of_layer_and_bin(layer, timestep, time_bin, side) -> None:
    plan = make_plan(side=side)
    tensors = inputs(plan)
    given = attention(*tensors, backend=placed(plan, layer=layer, timestep=timestep))
    torch.testing.assert_close(given, by_hand(plan, tensors, layer, time_bin), atol=2e-6, rtol=0)


def test_bf16_rounds_nothing_to_integers_and_who_computes_is_told() -> None:
    plan = make_plan()
    tensors = inputs(plan)
    given, wanted = (attention(*tensors, backend=placed(plan, precision)) for precision in ("bf16", "float"))
    assert torch.equal(given, wanted)
    for precision in ("float", "bf16", "int8", "int4"):
        assert placed(plan, precision).computed_by(torch.device("cpu"), torch.bfloat16, 64) == "pytorch"


def test_a_picture_s_two_orders_without_bins() -> None:
    plan = make_plan(grid=(12, 15), text=0, edges=())
    tensors = inputs(plan)
    backend = make_backend("paro", plan=plan, precision="float")
    backend.place.layer = 0
    torch.testing.assert_close(attention(*tensors, backend=backend), by_hand(plan, tensors, 0, 0), atol=2e-6, rtol=0)


def test_padding_of_the_text_is_masked_in_the_plan_s_order() -> None:
    plan = make_plan()
    tensors = inputs(plan)
    size = plan.meta.layout.num_tokens
    mask = (torch.arange(size) < torch.tensor([[size], [size - 5]]))[:, None, None]
    given = attention(*tensors, mask=mask, backend=placed(plan))
    torch.testing.assert_close(given, by_hand(plan, tensors, 1, 1, mask), atol=2e-6, rtol=0)


def test_a_plan_that_keeps_all_is_dense_attention_at_every_precision() -> None:
    plan = make_plan(share=2.0)
    tensors = inputs(plan)
    exact = attention(*tensors, backend="reference")
    for precision, bound in (("float", 1e-6), ("int8_qk", 0.03), ("int8", 0.04), ("int4", 0.6)):
        error = (attention(*tensors, backend=placed(plan, precision)) - exact).norm() / exact.norm()
        assert error < bound
    backend = make_backend("int4", plan=plan)
    backend.place = placed(plan).place
    given = attention(*tensors, backend=backend)
    assert torch.equal(given, attention(*tensors, backend=placed(plan, "int4")))


@pytest.mark.parametrize("change,reason", [
    ({"layer": -1}, "serves the layers of its plan"),
    ({"layer": 2}, "has a plan of 2 layers and 3 heads, not for layer 2 of 3"),
    ({"grid": (6, 3, 8)}, "has a plan for grid 3x6x8 and 7 text tokens, not 151 tokens of grid 6x3x8"),
    ({"side": "prefix"}, "has a plan with text as suffix, and this model's text is its prefix"),
    ({"timestep": None}, "has a plan with several timestep bins, and the call's timestep is not known"),
])  # fmt: skip
def test_a_call_that_the_plan_does_not_fit_is_refused_with_the_reason(change, reason) -> None:
    plan = make_plan()
    tensors, backend = inputs(plan), placed(plan)
    for name, value in change.items():
        setattr(backend.place, name, value)
    with pytest.warns(UserWarning, match=f"attention 'paro' {reason}.*'sdpa' takes its place"):
        given = attention(*tensors, backend=backend)
    torch.testing.assert_close(given, attention(*tensors, backend="sdpa"))


def test_other_calls_fall_back_visibly() -> None:
    plan = make_plan()
    (q, k, v), backend = inputs(plan), placed(plan)
    with pytest.warns(UserWarning, match="is for self-attention"):
        attention(q, k[:, :, :9], v[:, :, :9], backend=backend)
    with pytest.warns(UserWarning, match="takes no dense mask"):
        attention(q, k, v, mask=torch.rand(1, 1, q.shape[2], q.shape[2]) > 0.5, backend=backend)
    with pytest.warns(UserWarning, match="takes no block mask"):
        attention(q, k, v, mask=BlockMask(torch.ones(1, 1, 3, 3, dtype=torch.bool)), backend=backend)
    with pytest.warns(UserWarning, match="not 150 tokens of grid 3x6x8"):
        attention(*(t[:, :, 1:] for t in (q, k, v)), backend=backend)
    with pytest.warns(UserWarning, match="has no plan"):
        attention(q, k, v, backend="paro")


def test_plans_from_files_and_wrong_options(tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    make_plan().save(path)
    tensors = inputs(make_plan())
    backend = make_backend("paro", plan=path, precision="float")
    backend.place = placed(make_plan()).place
    with use_attention(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(attention(*tensors), attention(*tensors, backend=placed(make_plan())))
    with pytest.raises(UserError, match="can't be read as a plan"):
        make_backend("paro", plan=tmp_path / "absent")
    with pytest.raises(UserError, match="precision 'int3' is none of"):
        make_backend("paro", precision="int3")
    assert capability("int4").masks == ("keys",)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_gradients(precision) -> None:
    plan = make_plan()
    tensors = [t.requires_grad_() for t in inputs(plan, dtype=torch.float64)]
    weight = torch.randn_like(tensors[0])
    mine = torch.autograd.grad((attention(*tensors, backend=placed(plan, precision)) * weight).sum(), tensors)
    exact = torch.autograd.grad((by_hand(plan, tensors, 1, 1) * weight).sum(), tensors)
    for given, wanted in zip(mine, exact, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_compiles_without_graph_breaks_and_follows_place(precision) -> None:
    plan = make_plan()
    tensors, backend = inputs(plan), placed(plan, precision)
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(attention, fullgraph=True, backend=count)
    with use_attention(backend):
        for layer, timestep in ((1, 900.0), (1, 500.0), (1, 10.0), (0, 10.0)):
            backend.place.layer, backend.place.timestep = layer, torch.tensor([timestep])
            torch.testing.assert_close(compiled(*tensors), attention(*tensors))
    assert len(graphs) == 2  # one a layer; a timestep makes none
