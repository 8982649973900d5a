"""Weight tokens: the authors' layout, an exact round trip, and errors that say what to do."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulgurite.datamodules.dnd.lora_layout import llama_lora_shapes
from fulgurite.datamodules.dnd.weight_tokens import WeightTokenizer, token_weights
from fulgurite.registry import UserError

PREFIX = "base_model.model.model.layers."
MODULES = ("q", "k", "v", "o", "up", "gate", "down")


def random_state(shapes: dict[str, tuple[int, int]], scale: float = 0.02, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * scale for key, shape in shapes.items()}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    size = wanted.double().norm().item()
    return (found.double() - wanted.double()).norm().item() / size if size else found.abs().max().item()


@pytest.mark.parametrize(
    ("size", "rank", "chunk", "num_tokens", "num_weights"),
    [
        ((24, 896, 128, 4864), 8, 128, 4296, 4_399_104),  # Qwen2.5-0.5B
        ((28, 1536, 256, 8960), 16, 256, 4508, 18_464_768),  # Qwen2.5-1.5B
        ((36, 2048, 256, 11008), 16, 256, 7308, 29_933_568),  # Qwen2.5-VL-3B, text tower
        ((28, 3584, 512, 18944), 16, 512, 4928, 40_370_176),  # Qwen2.5-7B
        ((30, 576, 192, 1536), 8, 192, 1590, 2_442_240),  # SmolLM2-135M
    ],
)
def test_published_token_counts(
    size: tuple[int, ...], rank: int, chunk: int, num_tokens: int, num_weights: int
) -> None:
    shapes = llama_lora_shapes(*size, rank=rank)
    tokenizer = WeightTokenizer.from_shapes(shapes, rank=rank, chunk=chunk)
    assert tokenizer.num_tokens == num_tokens
    assert tokenizer.token_shape == (rank + 2, chunk + 2)
    assert sum(math.prod(shape) for shape in shapes.values()) == num_tokens * rank * chunk == num_weights


@settings(max_examples=60, deadline=None)
@given(
    rank=st.sampled_from([2, 4, 6, 8, 16]),
    chunk=st.sampled_from([2, 4, 6, 12]),
    widths=st.tuples(*[st.integers(1, 5)] * 3),
    modules=st.sets(st.sampled_from([*MODULES, "qkv", "gate_up", "dense"]), min_size=1),
    layers=st.sets(st.integers(0, 30), min_size=1, max_size=3),
    adapter=st.sampled_from(["", ".default", ".my-task_2"]),
    scale=st.sampled_from([1e-9, 1e-6, 1e-4, 1e-3, 0.02, 0.3, 1.0, 30.0]),
    offset=st.sampled_from([0.0, 1.0, -40.0]),
    seed=st.integers(0, 2**20),
    zero_b=st.booleans(),
)
def test_round_trip_is_exact_to_fp32(
    rank, chunk, widths, modules, layers, adapter, scale, offset, seed, zero_b
) -> None:
    shapes = {}
    for i, name in enumerate(sorted(modules)):
        for layer in layers:
            path = f"{PREFIX}{layer}.mlp.{name}_proj"
            shapes[f"{path}.lora_B{adapter}.weight"] = (chunk * widths[i % 3], rank)
            shapes[f"{path}.lora_A{adapter}.weight"] = (rank, chunk * widths[(i + 1) % 3])
    state = {key: value + offset * scale for key, value in random_state(shapes, scale, seed).items()}
    if zero_b:
        state = {key: value * 0 if "lora_B" in key else value for key, value in state.items()}
    tokenizer = WeightTokenizer(rank, chunk)
    tokens = tokenizer.tokenize(state)
    assert tokens.shape == (tokenizer.num_tokens, rank + 2, chunk + 2)
    assert tokens.dtype == torch.float32
    assert tokens.isfinite().all()
    back = tokenizer.detokenize(tokens)
    assert back.keys() == {key.replace(f"{adapter}.weight", ".weight") for key in state}
    for key, value in state.items():
        found = back[key.replace(f"{adapter}.weight", ".weight")]
        assert found.shape == value.shape
        assert relative_error(found, value) <= 1e-6
    restored = WeightTokenizer.from_layout(json.loads(json.dumps(tokenizer.layout())))
    assert torch.equal(restored.tokenize(dict(reversed(state.items()))), tokens)


@pytest.mark.parametrize("std", [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
def test_round_trip_of_smollm2_keeps_six_digits(std: float) -> None:
    shapes = llama_lora_shapes(30, 576, 192, 1536, rank=8)
    state = random_state(shapes, std)
    tokenizer = WeightTokenizer.from_adapter(state)
    assert tokenizer.chunk == 192
    back = tokenizer.detokenize(tokenizer.tokenize(state))
    assert max(relative_error(back[key], state[key]) for key in state) <= 1e-6


def test_fresh_lora_has_zero_b_and_no_nan() -> None:
    shapes = llama_lora_shapes(2, 16, 8, 24, rank=4)
    state = {key: torch.zeros(shape) if "lora_B" in key else torch.randn(shape) for key, shape in shapes.items()}
    tokenizer = WeightTokenizer(4, 8)
    tokens = tokenizer.tokenize(state)
    assert tokens.isfinite().all()
    back = tokenizer.detokenize(tokens)
    assert all(not back[key].any() for key in back if "lora_B" in key)


def test_constant_piece_comes_back_bit_for_bit() -> None:
    path = f"{PREFIX}0.mlp.up_proj"
    state = {f"{path}.lora_A.weight": torch.full((2, 8), 0.1), f"{path}.lora_B.weight": torch.full((8, 2), -3e-5)}
    tokenizer = WeightTokenizer(2, 8)
    tokens = tokenizer.tokenize(state)
    assert not tokens[:, :2, :8].any()
    assert all(torch.equal(value, state[key]) for key, value in tokenizer.detokenize(tokens).items())


def test_order_and_cut_are_the_papers() -> None:
    """Tokens are found by hand: layer, then q k v o up gate down, then A before B, then along the width."""
    shapes = llama_lora_shapes(11, 8, 4, 12, rank=2)
    state = random_state(dict(sorted(shapes.items(), reverse=True)))
    tokens = WeightTokenizer(2, 4).tokenize(state)
    at = 0
    for layer in range(11):
        for name in MODULES:
            block = "mlp" if name in ("up", "gate", "down") else "self_attn"
            path = f"{PREFIX}{layer}.{block}.{name}_proj"
            for matrix in (state[f"{path}.lora_A.weight"], state[f"{path}.lora_B.weight"].T):
                for start in range(0, matrix.shape[1], 4):
                    piece = matrix[:, start : start + 4]
                    mean, std = piece.mean(), piece.std(correction=1)
                    scale = torch.stack([8 * mean, torch.log(0.9 * std + 0.1) + 1.6])
                    torch.testing.assert_close(tokens[at, :2, :4], (piece - mean) / std, rtol=1e-4, atol=1e-4)
                    torch.testing.assert_close(tokens[at, 2:], scale.repeat(2, 3), rtol=1e-5, atol=1e-6)
                    torch.testing.assert_close(tokens[at, :, 4:], scale.expand(4, 2), rtol=1e-5, atol=1e-6)
                    at += 1
    assert at == len(tokens)


def test_other_modules_follow_by_name_and_the_head_comes_last() -> None:
    paths = [
        "transformer.lm_head",
        "transformer.h.10.attn.c_attn",
        "transformer.h.2.mlp.fc1",
        "transformer.h.2.attn.c_attn",
        "transformer.h.2.mlp.experts.10.up_proj",
        "transformer.h.2.mlp.experts.9.up_proj",
    ]
    shapes = {f"{path}.lora_{side}.weight": (2, 2) for path in paths for side in "AB"}
    order = list(WeightTokenizer.from_shapes(shapes, rank=2, chunk=2).shapes)
    assert [key.removesuffix(".lora_A.weight") for key in order[::2]] == [paths[i] for i in (5, 4, 3, 2, 1, 0)]


def test_all_copies_of_the_scale_are_averaged() -> None:
    """Noise on the copies of s' hardly moves the decoded weights; the same noise on every copy does."""
    state = random_state(llama_lora_shapes(1, 64, 64, 64, rank=8), 0.01)
    tokenizer = WeightTokenizer.from_adapter(state)
    tokens = tokenizer.tokenize(state)
    noisy, shifted = tokens.clone(), tokens.clone()
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    noisy[:, 8:], noisy[:, :8, 64:] = tokens[:, 8:] + noise[:, 8:], tokens[:, :8, 64:] + noise[:, :8, 64:]
    shifted[:, 8:], shifted[:, :, 64:] = tokens[:, 8:] + 1e-3, tokens[:, :, 64:] + 1e-3
    key = f"{PREFIX}0.mlp.up_proj.lora_B.weight"
    assert relative_error(tokenizer.detokenize(noisy)[key], state[key]) < 6e-3
    assert relative_error(tokenizer.detokenize(shifted)[key], state[key]) > 9e-3


def test_half_precision_adapters_come_back_unchanged() -> None:
    state = {k: v.bfloat16() for k, v in random_state(llama_lora_shapes(1, 8, 4, 12, rank=2), 1e-3).items()}
    tokenizer = WeightTokenizer(2, 4)
    back = tokenizer.detokenize(tokenizer.tokenize(state))
    assert all(torch.equal(back[key].bfloat16(), state[key]) for key in state)


def test_mask_uses_every_cell() -> None:
    tokenizer = WeightTokenizer.from_shapes(llama_lora_shapes(1, 8, 4, 12, rank=2), rank=2, chunk=4)
    assert tokenizer.mask.shape == (tokenizer.num_tokens, 4, 6)
    assert tokenizer.mask.dtype == torch.bool
    assert tokenizer.mask.all()


def bad_state(change: str) -> dict[str, Tensor]:
    state = random_state(llama_lora_shapes(2, 8, 4, 12, rank=2))
    key = f"{PREFIX}1.mlp.up_proj.lora_B.weight"
    if change == "missing":
        del state[key]
    elif change == "rank":
        state |= {key: torch.zeros(12, 4), key.replace("lora_B", "lora_A"): torch.zeros(4, 8)}
    elif change == "dora":
        state[key.replace("lora_B.weight", "lora_magnitude_vector")] = torch.zeros(12)
    elif change == "nan":
        state[key][0, 0] = math.nan
    elif change == "twice":
        state[key.replace("lora_B", "lora_B.default")] = state[key]
    elif change == "conv":
        state |= {key: torch.zeros(12, 2, 1, 1), key.replace("lora_B", "lora_A"): torch.zeros(2, 8, 1, 1)}
    elif change == "empty":
        state = {}
    return state


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("missing", "up_proj.lora_A.weight has no partner"),
        ("rank", "has rank 4 .* made for rank=2"),
        ("dora", "is no LoRA matrix"),
        ("nan", "holds NaN"),
        ("twice", "two adapters"),
        ("conv", "linear layers only"),
        ("empty", "state is empty"),
    ],
)
def test_unfit_adapters_are_refused(change: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        WeightTokenizer(2, 4).tokenize(bad_state(change))
    assert len(str(caught.value).splitlines()) <= 6


def test_wrong_chunk_names_the_widths_that_fit() -> None:
    with pytest.raises(
        UserError,
        match=r"doesn't divide 576, the width of .*q_proj.lora_A.weight\nWidths that divide all: 192, 96, 64, 48",
    ):
        WeightTokenizer.from_shapes(llama_lora_shapes(1, 576, 192, 1536, rank=8), rank=8, chunk=128)


@pytest.mark.parametrize(("rank", "chunk"), [(3, 4), (2, 5), (0, 4), (2, -2)])
def test_odd_rank_or_chunk_is_refused(rank: int, chunk: int) -> None:
    with pytest.raises(UserError, match=r"an even (rank|chunk)"):
        WeightTokenizer(rank, chunk)


def test_automatic_layout_says_why_it_cannot() -> None:
    with pytest.raises(UserError, match="no even common divisor"):
        WeightTokenizer.from_adapter(random_state(llama_lora_shapes(1, 9, 3, 15, rank=2)))
    with pytest.raises(UserError, match="this adapter has 2, 4"):
        WeightTokenizer.from_adapter(bad_state("rank"))
    with pytest.raises(UserError, match="this adapter has no LoRA matrix"):
        WeightTokenizer.from_adapter({})


def test_a_tokenizer_keeps_to_its_layout() -> None:
    tokenizer = WeightTokenizer(2, 4)
    with pytest.raises(UserError, match="knows no layout yet"):
        tokenizer.layout()
    tokens = tokenizer.tokenize(random_state(llama_lora_shapes(2, 8, 4, 12, rank=2)))
    with pytest.raises(UserError, match=r"missing 14, such as .*layers\.1"):
        tokenizer.tokenize(random_state(llama_lora_shapes(1, 8, 4, 12, rank=2)))
    with pytest.raises(UserError, match=r"tokens must be \[58, 4, 6\]"):
        tokenizer.detokenize(tokens[1:])
    refitted = tokenizer.fit(random_state(llama_lora_shapes(1, 8, 4, 12, rank=2)))
    assert refitted.num_tokens == 29


@pytest.mark.parametrize(
    ("change", "text"),
    [({"schema_version": 2}, "schema_version 2"), ({"shapes": None}, "incomplete"), ({"rank": 4}, "has rank 2")],
)
def test_foreign_layouts_are_refused(change: dict, text: str) -> None:
    layout = WeightTokenizer.from_shapes(llama_lora_shapes(1, 8, 4, 12, rank=2), rank=2, chunk=4).layout()
    with pytest.raises(UserError, match=text):
        WeightTokenizer.from_layout({**layout, **change})


def test_token_weights_follow_the_spread_over_snapshots() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    first = torch.randn(4000, 3, 4, 6, generator=generator) * spread
    weights = token_weights(iter([first]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.0, 1.5]), rtol=0.02, atol=0)
    assert weights.mean().item() == pytest.approx(1)
    # By the definition: element-wise std / its sum, averaged inside a token, times the number of elements.
    std = first[:50].std(0)
    wanted = (std / std.sum()).mean((1, 2)) * std.numel()
    torch.testing.assert_close(token_weights([first[:50]]), wanted)
    torch.testing.assert_close(token_weights([first[:50], first[:1]]), (wanted + 1) / 2)


def test_token_weights_without_spread_are_uniform() -> None:
    one = torch.randn(1, 3, 4, 6)
    assert torch.equal(token_weights([one]), torch.ones(3))
    assert torch.equal(token_weights([one.expand(5, -1, -1, -1)]), torch.ones(3))


def test_token_weights_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        token_weights([])
    with pytest.raises(ValueError, match="differ in their number of tokens: 3 and 2"):
        token_weights([torch.randn(2, 3, 4, 6), torch.randn(2, 2, 4, 6)])
    with pytest.raises(ValueError, match="snapshots >= 1"):
        token_weights([torch.randn(0, 3, 4, 6)])
