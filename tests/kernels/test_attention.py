"""Every attention backend against one float64 formula: forward, backward, shapes, masks, torch.compile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fulgurite.kernels import api
from fulgurite.kernels.api import AttentionBackend, BlockMask, Capability, attention, make_backend, use_attention
from fulgurite.registry import ATTENTION, UserError, read_index

B, H, N, M, D = 2, 3, 70, 131, 16
BACKENDS = sorted(read_index().of("attention"))
MASKS = ["none", "dense", "keys", "one_head", "block", "block_shared", "empty_rows", "empty"]
# half precision: errors of the softmax's inputs grow with the scores, so the bounds are those of random unit inputs
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """One thread, the same numbers in every test, nothing compiled left over."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()
    api._told.clear()
    yield
    assert api._current is make_backend("sdpa")


def inputs(dtype: torch.dtype = torch.float64, num_queries: int = N, num_keys: int = M) -> list[Tensor]:
    return [torch.randn(B, H, n, D, dtype=torch.float64).to(dtype) for n in (num_queries, num_keys, num_keys)]


def make_mask(kind: str) -> Tensor | BlockMask | None:
    if kind == "dense":
        return torch.rand(B, H, N, M) > 0.4
    if kind == "keys":
        return (torch.arange(M) < torch.tensor([[M], [17]]))[:, None, None]
    if kind == "one_head":
        return torch.rand(1, 1, N, M) > 0.4
    if kind == "block":
        return BlockMask(torch.rand(B, H, 2, 3) > 0.4)
    if kind == "block_shared":
        return BlockMask(torch.rand(1, H, 5, 9) > 0.4, block=16)
    if kind == "empty_rows":
        mask = torch.rand(B, H, N, M) > 0.4
        mask[0, 1, 5] = mask[1, 2, 9:12] = False
        return mask
    return torch.zeros(B, 1, N, M, dtype=torch.bool) if kind == "empty" else None


def formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask | None, scale: float) -> Tensor:
    """Row by row in float64: a softmax over the kept keys alone. Slow, and nothing like the code it judges."""
    keep = torch.ones(B, H, q.shape[2], k.shape[2], dtype=torch.bool)
    if isinstance(mask, BlockMask):
        row, column = (torch.arange(n) // mask.block for n in (q.shape[2], k.shape[2]))
        keep &= mask.keep[:, :, row][..., column]
    elif mask is not None:
        keep &= mask
    rows = []
    for b, h, n in ((b, h, n) for b in range(B) for h in range(H) for n in range(q.shape[2])):
        kept = keep[b, h, n]
        scores = (k[b, h][kept] @ q[b, h, n]) * scale
        rows.append(scores.softmax(0) @ v[b, h][kept] if kept.any() else 0 * (q[b, h, n] + k.sum() + v.sum()))
    return torch.stack(rows).view(B, H, q.shape[2], -1)


def supported(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask | None = None) -> AttentionBackend:
    backend = make_backend(name)
    reason = backend.why_not(q, k, v, mask)
    if reason:
        pytest.skip(f"{name} {reason}")
    return backend


@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("name", BACKENDS)
def test_forward_and_backward_in_float64(name: str, mask_kind: str) -> None:
    tensors, mask = [t.requires_grad_() for t in inputs()], make_mask(mask_kind)
    supported(name, *tensors, mask)
    wanted, given = formula(*tensors, mask, 0.3), attention(*tensors, mask=mask, scale=0.3, backend=name)
    assert (given - wanted).abs().max() < TOLERANCE[torch.float64]
    weight = torch.randn_like(wanted)
    for mine, exact in zip(
        torch.autograd.grad((given * weight).sum(), tensors),
        torch.autograd.grad((wanted * weight).sum(), tensors),
        strict=True,
    ):
        assert torch.isfinite(mine).all()
        assert (mine - exact).abs().max() < TOLERANCE[torch.float64]


@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BACKENDS)
def test_lower_precision(name: str, dtype: torch.dtype, mask_kind: str) -> None:
    tensors, mask = inputs(dtype), make_mask(mask_kind)
    supported(name, *tensors, mask)
    given = attention(*tensors, mask=mask, backend=name)
    wanted = formula(*(t.double() for t in tensors), mask, D**-0.5)
    assert given.dtype == dtype
    assert (given.double() - wanted).abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("size", [(1, 1), (1, 65), (63, 64), (65, 1)])
@pytest.mark.parametrize("name", BACKENDS)
def test_odd_sizes(name: str, size: tuple[int, int]) -> None:
    tensors = inputs(torch.float32, *size)
    supported(name, *tensors)
    wanted = formula(*(t.double() for t in tensors), None, D**-0.5)
    assert (attention(*tensors, backend=name).double() - wanted).abs().max() < TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", BACKENDS)
def test_strides_do_not_matter(name: str) -> None:
    tensors = inputs(torch.float32)
    supported(name, *tensors)
    # heads behind tokens, as projections leave them; and every second channel of a wider tensor
    heads_last = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors]
    spread = [torch.stack([t, t + 1], -1).flatten(-2)[..., ::2] for t in tensors]
    wanted = attention(*tensors, backend=name)
    for strided in (heads_last, spread):
        assert not strided[0].is_contiguous()
        torch.testing.assert_close(attention(*strided, backend=name), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
def test_values_may_be_of_another_width(name: str) -> None:
    q, k, v = inputs(torch.float32)
    if name in ("reference", "sdpa"):
        wide = torch.cat([v, v * 2], -1)
        out = attention(q, k, wide, backend=name)
        torch.testing.assert_close(out[..., D:], 2 * out[..., :D], atol=1e-5, rtol=0)


def test_reference_gradients_by_finite_differences() -> None:
    q, k, v = (torch.randn(1, 1, n, 2, dtype=torch.float64, requires_grad=True) for n in (3, 4, 4))
    mask = torch.rand(1, 1, 3, 4) > 0.3
    mask[0, 0, 1] = False
    assert torch.autograd.gradcheck(lambda *t: attention(*t, mask=mask, backend="reference"), (q, k, v))


def test_huge_scores_stay_finite() -> None:
    q, k, v = inputs(torch.float32)
    for name in ("reference", "sdpa"):
        assert torch.isfinite(attention(q * 1e4, k * 1e4, v, mask=make_mask("empty_rows"), backend=name)).all()


@pytest.mark.parametrize("mask_kind", ["none", "dense", "block"])
@pytest.mark.parametrize("name", BACKENDS)
def test_compiles_without_graph_breaks(name: str, mask_kind: str) -> None:
    tensors, mask = inputs(torch.float32), make_mask(mask_kind)
    supported(name, *tensors, mask)
    keep, block = (mask.keep, mask.block) if isinstance(mask, BlockMask) else (mask, 0)

    def call(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        return attention(q, k, v, mask=BlockMask(keep, block) if block and keep is not None else keep, backend=name)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors, keep), call(*tensors, keep), atol=1e-6, rtol=0)


class Doubling(AttentionBackend):
    """Attention of twice the values, so that one sees which backend ran; without a backward pass."""

    capability = Capability(masks=("dense",), gradients=False)

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: object, scale: float) -> Tensor:
        return make_backend("reference")(q_BHND, k_BHMD, 2 * v_BHME, mask=mask, scale=scale)  # type: ignore[arg-type]


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(api._ready, "doubling", Doubling())
    return "doubling"


def test_use_attention_reaches_compiled_code_and_ends(doubling: str) -> None:
    q, k, v = inputs(torch.float32)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    plain = compiled(q, k, v)
    with use_attention(doubling):
        torch.testing.assert_close(compiled(q, k, v), 2 * plain)
        with use_attention("reference"):
            torch.testing.assert_close(compiled(q, k, v), plain)
        torch.testing.assert_close(attention(q, k, v), 2 * plain)
        torch.testing.assert_close(attention(q, k, v, backend="sdpa"), plain)
    torch.testing.assert_close(compiled(q, k, v), plain)


def test_use_attention_ends_with_an_error(doubling: str) -> None:
    with pytest.raises(ZeroDivisionError), use_attention(doubling):
        _ = 1 / 0
    assert api._current is make_backend("sdpa")


@pytest.mark.parametrize("compiled", [False, True])
def test_what_a_backend_cannot_do_goes_to_the_reference_with_one_warning(doubling: str, compiled: bool) -> None:
    q, k, v = inputs(torch.float32)
    call = torch.compile(attention, fullgraph=True, backend="eager") if compiled else attention
    mask = BlockMask(torch.ones(1, 1, 2, 3, dtype=torch.bool))
    with use_attention(doubling):
        with pytest.warns(UserWarning, match="attention 'doubling' takes no block mask; 'reference' takes its place"):
            out = call(q, k, v, mask=mask)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            attention(q, k, v, mask=mask)
        with pytest.warns(UserWarning, match="has no backward pass"):
            call(q.clone().requires_grad_(), k, v)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            attention(q.clone().requires_grad_(), k, v)
    torch.testing.assert_close(out, attention(q, k, v), atol=1e-6, rtol=0)


def test_reasons_name_what_is_lacking() -> None:
    class Narrow(Doubling):
        capability = Capability(devices=("cuda",), dtypes=(torch.bfloat16,), head_dims=(64, 128))

    q, k, v = inputs(torch.float32)
    narrow = Narrow()
    assert narrow.why_not(q, k, v) == "runs on cuda, not on cpu"
    Narrow.capability = Capability(dtypes=(torch.bfloat16,), head_dims=(64, 128))
    assert narrow.why_not(q, k, v) == "computes in torch.bfloat16, not in torch.float32"
    assert narrow.why_not(*inputs(torch.bfloat16)) == "takes heads of width 64, 128, not 16"


def test_shapes_and_masks_that_do_not_fit() -> None:
    q, k, v = inputs(torch.float32)
    with pytest.raises(ValueError, match="are no"):
        attention(q, k[:, :, :-1], v)
    with pytest.raises(TypeError, match="boolean"):
        attention(q, k, v, mask=torch.ones(B, H, N, M))
    with pytest.raises(ValueError, match="does not fit"):
        attention(q, k, v, mask=torch.ones(B, H, N, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="does not fit"):
        attention(q, k, v, mask=BlockMask(torch.ones(B, H, math.ceil(N / 64), 2, dtype=torch.bool)))


def test_names_and_options_that_do_not_exist() -> None:
    q, k, v = inputs(torch.float32)
    with pytest.raises(UserError, match=r"(?s)no attention named 'sdpq'.*Did you mean 'sdpa'"):
        attention(q, k, v, backend="sdpq")
    with pytest.raises(UserError, match="attention 'sdpa' can't be made with plan: "):
        use_attention("sdpa", plan=1)


def test_both_backends_are_registered_and_say_what_they_do() -> None:
    for name in ("reference", "sdpa"):
        entry = read_index().of("attention")[name]
        assert entry.path.startswith("fulgurite.kernels.")
        assert len(entry.summary) > 20
        assert isinstance(ATTENTION[name](), AttentionBackend)
        assert api.capability(name).gradients


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BACKENDS)
def test_on_a_gpu(name: str, dtype: torch.dtype, mask_kind: str) -> None:
    """Forward and gradients; the kernels that PyTorch picks on a GPU differ by dtype and mask."""
    mask = make_mask(mask_kind)
    tensors = [t.requires_grad_() for t in inputs(dtype)]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    there = [t.detach().cuda().requires_grad_() for t in tensors]
    moved = (
        BlockMask(mask.keep.cuda(), mask.block)
        if isinstance(mask, BlockMask)
        else None
        if mask is None
        else mask.cuda()
    )
    supported(name, *there, moved)
    wanted, given = formula(*exact, mask, D**-0.5), attention(*there, mask=moved, backend=name)
    bound = 5e-3 if dtype == torch.float32 else 2 * TOLERANCE[dtype]  # float32 may run in TF32
    assert (given.cpu().double() - wanted).abs().max() < bound
    weight = torch.randn_like(wanted)
    mine = torch.autograd.grad((given * weight.cuda().to(dtype)).sum(), there)
    for gradient, true in zip(mine, torch.autograd.grad((wanted * weight).sum(), exact), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient.cpu().double() - true).abs().max() < 4 * bound * true.abs().max().clamp(min=1)
