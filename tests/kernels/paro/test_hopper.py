"""The kernels on a GPU: each layout by itself, the pre-pass's integers, attention against float64 on its own integers,
and the whole against numerics.py."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch
from torch import Tensor

from fulgurite.kernels.api import attention, make_backend
from fulgurite.kernels.paro import native, portable, tiles
from fulgurite.kernels.paro.driver import kernel, launch
from fulgurite.kernels.paro.numerics import PRECISIONS, paro_attention
from fulgurite.kernels.paro.op import paro_int8
from fulgurite.kernels.paro.orders import inverse, reorder
from fulgurite.kernels.paro.plan import pack, unpack

from .test_plan import make_plan

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HOPPER, reason="needs a GPU of compute capability 9.0")]
VARIANTS = list(native.VARIANTS.values())
MASKS = ("full", "random", "one", "alternating", "last", "empty rows")
P = ctypes.c_void_p


def make(batch: int, heads: int, size: int, width: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    torch.manual_seed(size)
    q, k, v = (torch.randn(batch, heads, size, width, device="cuda").to(dtype) for _ in range(3))
    k += torch.randn(1, heads, 1, width, device="cuda").to(dtype)
    perm = torch.stack([torch.randperm(size, device="cuda") for _ in range(heads)]).int()
    return [q, k, v, perm]


def mask(kind: str, batch: int, heads: int, size: int) -> Tensor:
    blocks = -(-size // 64)
    keep = torch.zeros(batch, heads, blocks, blocks, dtype=torch.bool, device="cuda")
    if kind == "full":
        keep[:] = True
    elif kind == "alternating":
        keep[..., ::2] = True
    elif kind == "last":
        keep[..., -1] = True
    elif kind == "one":
        keep |= torch.eye(blocks, dtype=torch.bool, device="cuda")
    else:
        keep = torch.rand(keep.shape, device="cuda") < 0.5
        if kind == "empty rows":
            keep[:, :, ::2] = False
    return keep


def seen(given: native.Quantised) -> Tensor:
    """Which keys are seen, bool [B * H, places]."""
    return unpack(given.k_meta[..., 2:].contiguous().view(torch.uint8), 64).flatten(1)


def row_steps(given: native.Quantised) -> tuple[Tensor, Tensor]:
    """Of the blocks of queries and of keys."""
    return given.q_step, given.k_meta.view(torch.float32)[..., 0]


def by_its_own_integers(given: native.Quantised, keep: Tensor, perm: Tensor) -> Tensor:
    """Attention in float64 of the integers that the pre-pass made, in the tokens' own order."""
    batch, heads, size, width = given.shape
    steps = [
        s.double().repeat_interleave(64, 1)[..., None] for s in (given.q_step, given.k_meta.view(torch.float32)[..., 0])
    ]
    q, k = (tiles.from_row_tiles(t.view(torch.int8), width) * s for t, s in zip((given.q, given.k), steps, strict=True))
    v = tiles.from_value_tiles(given.v.view(torch.int8), width) * given.v_step.double()[:, None]
    dense = keep.expand(batch, heads, -1, -1).flatten(0, 1).repeat_interleave(64, 1).repeat_interleave(64, 2)
    scores = (q @ k.mT * math.log(2)).masked_fill(~(dense & seen(given)[:, None]), -math.inf)
    p = (scores - scores.amax(2, keepdim=True).clamp_min(-1e30)).exp()
    rounded = (p * 255).round() / 255
    made = (rounded @ v / p.sum(2, keepdim=True).clamp_min(1e-30))[:, :size].unflatten(0, (batch, heads))
    return reorder(made, inverse(perm.long()))


def written_out(tensors: list[Tensor], keep: Tensor, seen_BN: Tensor | None, precision: str) -> Tensor:
    q, k, v, perm = tensors
    order = perm.long()
    keys = None if seen_BN is None else seen_BN[:, order].unsqueeze(2)
    inputs = [reorder(t, order).float() for t in (q, k, v)]
    made = paro_attention(*inputs, keep, key_mask_B11M=keys, precision=PRECISIONS[precision])
    return reorder(made, inverse(order))


def distance(given: Tensor, wanted: Tensor) -> float:
    assert torch.isfinite(given).all()
    return float((given.double() - wanted).norm() / wanted.double().norm())


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("num_keys", [64, 128])
def test_products_of_queries_and_keys(width, num_keys) -> None:
    q, k = (torch.randint(-127, 128, (n, width), dtype=torch.int8) for n in (64, num_keys))
    data = torch.cat([tiles.to_row_tiles(t).flatten() for t in (q, k)]).cuda()
    out = torch.full((64, num_keys), -1, dtype=torch.int32, device="cuda")
    shared = 1024 + (64 + num_keys) * width
    unit = kernel("units.fatbin", f"unit_scores_d{width}_n{num_keys}", shared, out.device.index)
    launch(unit, (1, 1, 1), 128, shared, P(data.data_ptr()), P(0), P(out.data_ptr()))
    assert torch.equal(out.cpu(), q.int() @ k.int().T)


@pytest.mark.parametrize("width", [64, 128])
def test_products_of_probabilities_and_values(width) -> None:
    p, v = (
        torch.randint(0, 256, (64, 64), dtype=torch.uint8).cuda(),
        torch.randint(-127, 128, (64, width), dtype=torch.int8),
    )
    data, out = tiles.to_value_tiles(v).cuda(), torch.full((64, width), -1, dtype=torch.int32, device="cuda")
    shared = 1024 + 64 * width
    unit = kernel("units.fatbin", f"unit_values_d{width}", shared, out.device.index)
    launch(unit, (1, 1, 1), 128, shared, P(data.data_ptr()), P(p.data_ptr()), P(out.data_ptr()))
    assert torch.equal(out.cpu(), p.cpu().int() @ v.int())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 128), (1, 2, 200, 64), (2, 3, 1000, 128), (2, 2, 5000, 64)])
def test_the_pre_pass_rounds_as_numerics_does(shape, dtype) -> None:
    q, k, v, perm = make(*shape, dtype)
    batch, heads, size, width = shape
    given = native.quantise(q, k, v, perm, None, 1 / math.log2(math.e))
    order = perm.long()
    q, k, v = (reorder(t, order).float().flatten(0, 1) for t in (q, k, v))
    k = k - k.mean(1, keepdim=True)
    steps = [
        s.repeat_interleave(64, 1)[:, :size, None] for s in (given.q_step, given.k_meta.view(torch.float32)[..., 0])
    ]
    values = (given.q, q, steps[0]), (given.k, k, steps[1]), (given.v, v, given.v_step[:, None])
    for data, true, step in values:
        back = tiles.from_value_tiles if data is given.v else tiles.from_row_tiles
        made = back(data.view(torch.int8), width).float()
        assert not made[:, size:].any()
        assert (made[:, :size] * step - true).abs().max() <= 0.501 * step.max()
        assert made.abs().amax((1, 2)).eq(127).all()
    assert torch.equal(
        seen(given), (torch.arange(seen(given).shape[1], device="cuda") < size).expand(batch * heads, -1)
    )


def test_lists_hold_each_row_s_columns_and_work_each_row_once() -> None:
    keep = torch.rand(2, 3, 77, 77, device="cuda") > 0.5
    lists = native.lists_of(pack(keep), 2, 3)
    assert torch.equal(lists.count, keep.sum(-1))
    for row, count, column in zip(keep.flatten(0, 2), lists.count.flatten(), lists.column.flatten(0, 2), strict=True):
        assert column[:count].tolist() == row.nonzero()[:, 0].tolist()
    assert sorted(lists.work.tolist()) == list(range(2 * 3 * 77))
    assert (lists.count.flatten()[lists.work.long()].view(6, 77).diff() <= 0).all()


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 192), (2, 3, 1072), (1, 4, 4112)])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_attention_of_the_integers(variant, shape, kind) -> None:
    """Tails of 1, 48 and 16 tokens; the same bits twice; every element written."""
    q, k, v, perm = make(*shape, variant.width)
    keep = mask(kind, *shape)
    scale = variant.width**-0.5
    given, lists = native.quantise(q, k, v, perm, None, scale), native.lists_of(pack(keep), *shape[:2])
    outs = [torch.full_like(q, float("nan")) for _ in range(2)]
    for out in outs:
        native.attend(given, lists, perm, out, variant)
    assert torch.equal(*outs)
    wanted = by_its_own_integers(given, keep, perm)
    if wanted.any():
        assert distance(outs[0], wanted) < 0.02
    else:
        assert not outs[0].any()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_the_whole_errs_no_more_than_numerics(width, padded) -> None:
    tensors = make(2, 3, 4016, width)
    keep = mask("random", 1, 3, 4016)
    there = torch.rand(2, 4016, device="cuda") > 0.1 if padded else None
    given = paro_int8(*tensors[:3], pack(keep), tensors[3], there, width**-0.5)
    rounded, exact = (written_out(tensors, keep, there, precision) for precision in ("int8", "float"))
    assert distance(given, rounded) < 0.02
    assert distance(given, exact) < 1.1 * distance(rounded, exact) + 2e-3
    strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors[:3]]
    assert torch.equal(paro_int8(*strided, pack(keep), tensors[3], there, width**-0.5), given)


@pytest.mark.parametrize("size", [75_600, 200_000])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_equal_keys_and_the_largest_values_do_not_overflow(variant, size) -> None:
    """255 x 127 x 66,311 is 2^31."""
    q = torch.full((1, 1, size, variant.width), 3.0, device="cuda", dtype=torch.bfloat16)
    v = torch.full_like(q, 100.0)
    perm = torch.arange(size, dtype=torch.int32, device="cuda")[None]
    blocks = -(-size // 64)
    keep = torch.zeros(1, 1, blocks, blocks, dtype=torch.bool, device="cuda")
    keep[:, :, :4] = keep[:, :, -1] = True
    out = native.paro_forward(q, q, v, pack(keep), perm, None, 0.1, variant=variant)[0, 0].float()
    assert ((out[:256] - 100).abs() < 1).all() and ((out[blocks * 64 - 64 :] - 100).abs() < 1).all()
    assert not out[256 : blocks * 64 - 64].any()


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("width", [64, 128])
def test_the_control_in_bf16(width, kind) -> None:
    tensors = make(2, 2, 1072, width)
    keep, there = mask(kind, 2, 2, 1072), torch.rand(2, 1072, device="cuda") > 0.1
    given = native.paro_forward(
        *tensors[:3], pack(keep), tensors[3], there, width**-0.5, variant=native.CONTROLS[width]
    )
    assert distance(given, written_out(tensors, keep, there, "float")) < 4e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_the_triton_kernel(width, dtype) -> None:
    if reason := portable.why_not(torch.device("cuda"), dtype, width):
        pytest.skip(reason)
    tensors = make(2, 2, 1072, width, dtype)
    keep, there = mask("empty rows", 2, 2, 1072), torch.rand(2, 1072, device="cuda") > 0.1
    given = portable.portable_forward(*tensors[:3], pack(keep), tensors[3], there, width**-0.5)
    assert distance(given, written_out(tensors, keep, there, "int8")) < 0.015


def test_compiled_and_in_a_graph() -> None:
    q, k, v, perm = make(1, 2, 1000, 64)
    bits = pack(mask("random", 1, 2, 1000))
    wanted = paro_int8(q, k, v, bits, perm, None, 0.125)
    compiled = torch.compile(lambda *given: paro_int8(*given, None, 0.125) * 1.0, fullgraph=True)
    assert torch.equal(compiled(q, k, v, bits, perm), wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = paro_int8(q, k, v, bits, perm, None, 0.125)
    out.zero_()
    graph.replay()
    assert torch.equal(out, wanted)


def test_the_backend_computes_by_them_and_gradients_by_pytorch(recwarn) -> None:
    plan = make_plan(grid=(3, 12, 16))
    size = plan.meta.layout.num_tokens
    here = [torch.randn(2, 3, size, 64).to(torch.bfloat16) for _ in range(3)]
    mask = (torch.arange(size) < torch.tensor([[size], [size - 5]]))[:, None, None]
    outs = {}
    for device in ("cpu", "cuda"):
        backend = make_backend("paro", plan=plan)
        backend.place.layer, backend.place.timestep, backend.place.grid = 1, torch.tensor([500.0]), plan.meta.grid
        inputs = [t.detach().to(device).requires_grad_() for t in here]
        with torch.no_grad():
            outs[device] = attention(*inputs, mask=mask.to(device), backend=backend).cpu().float()
        attention(*inputs, mask=mask.to(device), backend=backend).sum().backward()
        assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in inputs)
    assert distance(outs["cuda"], outs["cpu"]) < 0.02
    assert not [w for w in recwarn if "attention 'paro'" in str(w.message)]


def test_the_backend_computes_bf16_by_the_control() -> None:
    plan = make_plan(grid=(3, 12, 16))
    size = plan.meta.layout.num_tokens
    inputs = [torch.randn(2, 3, size, 64, device="cuda").to(torch.bfloat16) for _ in range(3)]
    mask = (torch.arange(size, device="cuda") < torch.tensor([[size], [size - 5]], device="cuda"))[:, None, None]
    outs = {}
    for precision, who in (("bf16", "hopper"), ("float", "pytorch")):
        backend = make_backend("paro", plan=plan, precision=precision)
        backend.place.layer, backend.place.timestep, backend.place.grid = 1, torch.tensor([500.0]), plan.meta.grid
        assert backend.computed_by(inputs[0].device, torch.bfloat16, 64) == who
        outs[precision] = attention(*inputs, mask=mask, backend=backend).float()
    assert distance(outs["bf16"], outs["float"]) < 4e-3
