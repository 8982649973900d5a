"""The transformer: diffusers' base and, beside it, history, mask, camera and guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from fulgurite.kernels import api
from fulgurite.kernels.api import use_attention
from fulgurite.lightning_modules.gamecraft.transformer import SIZES, GameCraftTransformer
from fulgurite.registry import UserError

INJECTIONS = ["add", "token_concat", "channel_concat"]
SMALL = {**SIZES["tiny"], "text_embed_dim": 12, "pooled_projection_dim": 12}


@pytest.fixture(autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()


def make(**changes: Any) -> GameCraftTransformer:
    """A model in which nothing is zero any more."""
    model = GameCraftTransformer(**{**SMALL, **changes}).eval()
    for parameter in model.parameters():
        if parameter.count_nonzero() == 0:
            nn.init.normal_(parameter, std=0.2)
    return model


def inputs(num_history: int = 1, batch: int = 2) -> dict[str, Tensor]:
    noisy, history = torch.randn(batch, 16, 9, 4, 6), torch.randn(batch, 16, num_history, 4, 6)
    return {
        "hidden_states": GameCraftTransformer.model_input(noisy, history),
        "timestep": torch.tensor([900.0, 300.0])[:batch],
        "encoder_hidden_states": torch.randn(batch, 5, 12),
        "encoder_attention_mask": (torch.arange(5) < torch.tensor([[3], [5]]))[:batch],
        "pooled_projections": torch.randn(batch, 12),
    }


def rays(batch: int = 2) -> Tensor:
    return torch.randn(batch, 33, 6, 32, 48)


def test_model_input_is_clean_history_twice_and_a_mask() -> None:
    noisy, history = torch.randn(2, 16, 9, 4, 6), torch.randn(2, 16, 18, 4, 6)
    x = GameCraftTransformer.model_input(noisy, history)
    assert x.shape == (2, 33, 27, 4, 6)
    assert torch.equal(x[:, :16, :18], history)
    assert torch.equal(x[:, :16, 18:], noisy)
    assert torch.equal(x[:, 16:32, :18], history)
    assert x[:, 16:32, 18:].count_nonzero() == 0
    assert torch.equal(x[:, 32].amax((2, 3)), torch.tensor([1.0] * 18 + [0.0] * 9).expand(2, -1))


@pytest.mark.parametrize("num_history", [1, 9])
@torch.no_grad()
def test_without_a_camera_it_is_the_base(num_history: int) -> None:
    ours = make()
    base = HunyuanVideoTransformer3DModel(in_channels=33, out_channels=16, **SMALL).eval()
    base.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("camera_encoder")})
    given, guidance = inputs(num_history), torch.tensor([0.0, 1500.0])
    wanted = base(**given, guidance=guidance, return_dict=False)[0]
    torch.testing.assert_close(ours(**given, guidance=guidance), wanted, atol=1e-5, rtol=1e-5)
    wrapped = ours(**given, guidance=guidance, return_dict=True).sample
    torch.testing.assert_close(wrapped, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_the_camera_starts_silent_and_then_speaks(injection: str) -> None:
    given, plucker = inputs(), rays()
    fresh = GameCraftTransformer(**SMALL, camera_injection=injection).eval()
    tokens = fresh.camera_tokens(plucker, 1)
    assert tokens.count_nonzero() == 0
    if injection != "token_concat":  # tokens of zeros still take part in the softmax
        assert torch.equal(fresh(**given, camera_tokens=tokens), fresh(**given))
    model = make(camera_injection=injection)
    out, other = (model(**given, camera_tokens=model.camera_tokens(p, 1)) for p in (plucker, rays()))
    assert out.shape == (2, 16, 10, 4, 6)
    assert (out - other).abs().max() > 1e-4


@torch.no_grad()
def test_text_that_the_mask_hides_has_no_effect() -> None:
    model, given = make(), inputs()
    before = model(**given)
    given["encoder_hidden_states"][0, 3:] += 5
    torch.testing.assert_close(model(**given), before, atol=1e-5, rtol=0)
    given["encoder_hidden_states"][0, 2] += 5
    assert (model(**given) - before)[0].abs().max() > 1e-4


@torch.no_grad()
def test_no_mask_means_that_all_text_counts() -> None:
    model, given = make(), inputs()
    given["encoder_attention_mask"] = torch.ones(2, 5, dtype=torch.bool)
    masked = model(**given)
    torch.testing.assert_close(model(**{**given, "encoder_attention_mask": None}), masked, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_guidance_says_nothing_until_it_is_trained() -> None:
    given, w = inputs(), torch.tensor([500.0, 2000.0])
    fresh = GameCraftTransformer(**SMALL).eval()
    assert torch.equal(fresh(**given, guidance=w), fresh(**given))
    trained = make()
    assert (trained(**given, guidance=w) - trained(**given)).abs().max() > 1e-4


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_compiles_in_one_graph(injection: str) -> None:
    model, plucker = make(camera_injection=injection), rays()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens_of = torch.compile(model.camera_tokens, fullgraph=True, backend="aot_eager")
    given, w = inputs(), torch.tensor([500.0, 2000.0])
    tokens = model.camera_tokens(plucker, 1)
    torch.testing.assert_close(tokens_of(plucker, 1), tokens, atol=1e-5, rtol=1e-5)
    wanted = model(**given, camera_tokens=tokens, guidance=w)
    torch.testing.assert_close(compiled(**given, camera_tokens=tokens, guidance=w), wanted, atol=1e-5, rtol=1e-5)
    given["encoder_attention_mask"] = None  # type: ignore[assignment]
    torch.testing.assert_close(compiled(**given), model(**given), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_goes_through_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(api.AttentionBackend):
        calls = 0

        def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, mask: object, scale: float) -> Tensor:
            Silent.calls += 1
            return torch.zeros_like(q)

    monkeypatch.setitem(api._ready, "silent", Silent())
    monkeypatch.setitem(api.ATTENTION._parts, "silent", Silent)
    model, given = make(), inputs()
    plain = model(**given)
    with use_attention("silent"):
        assert (model(**given) - plain).abs().max() > 1e-4
    assert Silent.calls == 1 + 1 + 2  # refiner, double block, single blocks
    with use_attention("reference"):
        torch.testing.assert_close(model(**given), plain, atol=1e-5, rtol=1e-5)
    model.set_attention({"*": "reference", "single_transformer_blocks.*": "silent"})
    model(**given)
    assert Silent.calls == 4 + 2
    model.set_attention(None)
    assert torch.equal(model(**given), plain)


def test_attention_that_does_not_exist() -> None:
    model = make()
    with pytest.raises(UserError, match="no attention named 'flsh'"):
        model.set_attention("flsh")
    with pytest.raises(UserError, match=r"no layer is called 'transformer_block.\*'\nDid you mean 'transformer_blocks"):
        model.set_attention({"transformer_block.*": "sdpa"})


def test_checkpointed_gradients_are_the_same() -> None:
    model, given, plucker = make().train(), inputs(), rays()
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.gradient_checkpointing = False
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(**given, camera_tokens=model.camera_tokens(plucker, 1)).square().mean().backward()
        unused = {n for n, p in model.named_parameters() if p.grad is None}
        assert all("guidance_embedder" in name for name in unused)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_saved_and_loaded_to_the_bit(injection: str, tmp_path: Path) -> None:
    model, given, plucker = make(camera_injection=injection), inputs(), rays()
    model.save_pretrained(tmp_path)
    loaded = GameCraftTransformer.from_pretrained(tmp_path).eval()
    assert loaded.config.camera_injection == injection
    assert loaded.config.in_channels == 33
    out, again = (m(**given, camera_tokens=m.camera_tokens(plucker, 1)) for m in (model, loaded))
    assert torch.equal(out, again)


@torch.no_grad()
def test_bfloat16_computes_about_the_same() -> None:
    model, given, plucker = make(), inputs(), rays()
    wanted = model(**given, camera_tokens=model.camera_tokens(plucker, 1))
    half = nn.Module.to(model, torch.bfloat16)
    out = half(**given, camera_tokens=half.camera_tokens(plucker, 1))
    assert out.dtype == torch.bfloat16
    assert (out.float() - wanted).norm() < 0.05 * wanted.norm()


def test_the_student_fits_the_real_time_budget() -> None:
    with torch.device("meta"):
        student = GameCraftTransformer.of_size("student")
    assert 7e6 < sum(p.numel() for p in student.parameters()) < 13e6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_a_cuda_graph_replays_it(masked: bool) -> None:
    model, plucker = make().cuda(), rays().cuda()
    given: dict[str, Any] = {name: tensor.cuda() for name, tensor in inputs().items()}
    if not masked:
        given["encoder_attention_mask"] = None
    given["guidance"] = torch.tensor([500.0, 2000.0]).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            model(**given, camera_tokens=model.camera_tokens(plucker, 1))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = model(**given, camera_tokens=model.camera_tokens(plucker, 1))
    given["hidden_states"].normal_()
    plucker.normal_()
    graph.replay()
    wanted = model(**given, camera_tokens=model.camera_tokens(plucker, 1))
    torch.testing.assert_close(out, wanted, atol=1e-4, rtol=1e-3)
