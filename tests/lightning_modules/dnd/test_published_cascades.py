"""The published cascades fit their base models' LoRAs, and have the published sizes; built without memory."""

from __future__ import annotations

import pytest
import torch

from fulgurite.datamodules.dnd.lora_layout import llama_lora_shapes
from fulgurite.datamodules.dnd.weight_tokens import WeightTokenizer
from fulgurite.lightning_modules.dnd.hyperconv import HyperConvGenerator

Case = tuple[int, int, int, int, int, int, list[list[int]], int, float, float]
# layers, hidden, key-value width, MLP width, rank, chunk; cascade, kernel; parameters and MACs in billions
CASES: dict[str, Case] = {
    "common sense, Qwen2.5-0.5B": (
        24, 896, 128, 4864, 8, 128,
        [[128, 384, 384], [128, 200, 300], [128, 100, 256], [256, 50, 200], [512, 50, 200], [1024, 25, 200],
         [1024, 10, 200], [2048, 10, 200], [4296, 10, 130]], 9, 1.11, 4100,
    ),
    "coding, Qwen2.5-1.5B": (
        28, 1536, 256, 8960, 16, 256,
        [[16, 1000, 384], [64, 500, 300], [256, 125, 300], [512, 64, 300], [1024, 64, 256], [2048, 32, 256],
         [4508, 18, 258]], 11, 1.72, 13700,
    ),
    "maths, Qwen2.5-1.5B": (
        28, 1536, 256, 8960, 16, 256,
        [[32, 1000, 384], [64, 500, 300], [256, 500, 300], [512, 125, 300], [1024, 64, 256], [2048, 32, 256],
         [4508, 18, 258]], 11, 1.78, 19000,
    ),
    "maths and coding, Qwen2.5-7B": (
        28, 3584, 512, 18944, 16, 512,
        [[16, 1000, 384], [64, 500, 384], [256, 125, 400], [512, 64, 400], [1024, 64, 400], [2048, 32, 400],
         [4928, 18, 514]], 11, 1.94, 26400,
    ),
    "multimodal, Qwen2.5-VL-3B": (
        36, 2048, 256, 11008, 16, 256,
        [[16, 1536, 384], [64, 500, 300], [256, 125, 300], [1024, 64, 300], [2048, 16, 256], [7308, 18, 258]],
        11, 2.41, 14400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_published_cascade_ends_in_its_model_s_tokens(name: str) -> None:
    layers, hidden, kv, ffn, rank, chunk, cascade, kernel, billions, giga_macs = CASES[name]
    tokenizer = WeightTokenizer.from_shapes(llama_lora_shapes(layers, hidden, kv, ffn, rank), rank=rank, chunk=chunk)
    assert cascade[-1] == [tokenizer.num_tokens, *tokenizer.token_shape]
    with torch.device("meta"):
        network = HyperConvGenerator(cascade, kernel)
        out = network(torch.empty(1, *cascade[0]))
    assert list(out.shape) == [1, *cascade[-1]]
    assert network.num_parameters / 1e9 == pytest.approx(billions, abs=0.006)
    assert network.num_macs / 1e9 == pytest.approx(giga_macs, rel=0.03)
