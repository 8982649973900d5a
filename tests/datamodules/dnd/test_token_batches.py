"""Batches of tokens give the adapters that the exact decoder gives, with gradients; aligned adapters work the same."""

from __future__ import annotations

import pytest
import torch

from fulgurite.datamodules.dnd.lora_layout import llama_lora_shapes
from fulgurite.datamodules.dnd.token_batches import align, product_error, untokenize_batch
from fulgurite.datamodules.dnd.weight_tokens import WeightTokenizer

SHAPES = llama_lora_shapes(num_layers=2, hidden=32, kv=16, ffn=48, rank=4)


def adapter(seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=rng) * (0.2 if ".lora_A." in k else 0.01) for k, s in SHAPES.items()}


def products(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: state[k.replace(".lora_A.", ".lora_B.")] @ a for k, a in state.items() if ".lora_A." in k}


def test_a_batch_decodes_as_one_by_one_does() -> None:
    tokenizer = WeightTokenizer.from_shapes(SHAPES, rank=4, chunk=16)
    states = [adapter(1), adapter(2)]
    tokens_BTHW = torch.stack([tokenizer.tokenize(s) for s in states]).requires_grad_()
    found = untokenize_batch(tokenizer, tokens_BTHW)
    for i, state in enumerate(states):
        for key, value in tokenizer.detokenize(tokens_BTHW[i]).items():
            torch.testing.assert_close(found[key][i], value, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(found[key][i], state[key], rtol=1e-3, atol=1e-5)
    sum(v.square().sum() for v in found.values()).backward()  # type: ignore[union-attr]
    assert tokens_BTHW.grad is not None and tokens_BTHW.grad.abs().amax((0, 2, 3)).min() > 0, "a token has no gradient"
    with pytest.raises(ValueError, match=r"tokens must be \[B, "):
        untokenize_batch(tokenizer, tokens_BTHW[:, 1:])


def test_product_error_is_that_of_the_products_themselves() -> None:
    made, wanted = adapter(1), adapter(2)
    expected = [
        ((a - b).square().sum() / b.square().sum())
        for a, b in zip(products(made).values(), products(wanted).values(), strict=True)
    ]
    found = product_error({k: v[None] for k, v in made.items()}, {k: v[None] for k, v in wanted.items()})
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-4, atol=1e-6)


def test_an_aligned_adapter_does_the_same_and_lies_nearer() -> None:
    reference = adapter(3)
    turn_RR = torch.tensor([[0.0, 2, 0, 0], [-0.5, 0, 0, 0], [0, 0, 1, 1], [0, 0, -1, 1]])
    hidden = {
        k: turn_RR @ v if ".lora_A." in k else v @ torch.linalg.inv(turn_RR) for k, v in reference.items()
    }  # the reference in other coordinates: what LoRA leaves open
    found = align(hidden, reference)
    for key, value in reference.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(hidden[key], value)
    other = adapter(4)
    for key, value in products(align(other, reference)).items():
        torch.testing.assert_close(value, products(other)[key], rtol=1e-3, atol=1e-5)
