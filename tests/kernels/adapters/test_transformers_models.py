"""A language model of transformers through our backends by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from fulgurite.kernels import api
from fulgurite.kernels.adapters.transformers_interface import register_in_transformers

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    api._told.clear()
    yield


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_agrees_with_sdpa(kind: str, padded: bool) -> None:
    model: torch.nn.Module
    if kind == "llama":  # causal, with fewer heads of keys than of queries
        model = LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2, attn_implementation="sdpa")).eval()
    else:
        model = BertModel(BertConfig(**SMALL, attn_implementation="sdpa")).eval()
    tokens = torch.randint(60, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int64)
    if padded:
        mask[1, 6:] = 0
    with torch.no_grad():
        own = model(tokens, attention_mask=mask).last_hidden_state
        register_in_transformers("reference")
        model.set_attn_implementation("reference")
        given = model(tokens, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(given[mask.bool()], own[mask.bool()], atol=1e-5, rtol=1e-5)
        register_in_transformers("paro")
        model.set_attn_implementation("paro")
        with pytest.warns(UserWarning, match="attention 'paro' has no plan"):
            given = model(tokens, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(given[mask.bool()], own[mask.bool()], atol=1e-5, rtol=1e-5)


def test_dropout_is_refused() -> None:
    config = BertConfig(**SMALL, attn_implementation="sdpa")
    model = BertModel(config).train()
    register_in_transformers("reference")
    model.set_attn_implementation("reference")
    with pytest.raises(ValueError, match="has no dropout"):
        model(torch.zeros(1, 3, dtype=torch.int64))
