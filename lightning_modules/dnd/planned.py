"""What a step of the generator, and of the LoRAs that it learns from, does, for `fulgurite plan`."""

from __future__ import annotations

import warnings
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ...registry import UserError
from ..planned import PLANNERS, Planned, total_batches
from .hyperconv import HyperConvGenerator
from .losses import weighted_token_mse


@PLANNERS.register("dnd")
def plan_generator(
    model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]
) -> Planned:
    """Conditions of the first shape of the cascade, weight tokens of the last."""
    network = HyperConvGenerator(model["shapes"], model["kernel_size"])
    size, (tokens, height, width) = int(data["batch_size"]), model["shapes"][-1]
    condition_BNLC, target_BTHW = torch.randn(size, *model["shapes"][0]), torch.randn(size, tokens, height, width)
    weight_T = torch.ones(tokens)

    def loss() -> Tensor:
        return weighted_token_mse(network(condition_BNLC), target_BTHW, weight_T)

    return Planned(
        network, loss, size, "weight tokens", tokens, total_batches(data, trainer),
        assumptions=("Conditions and snapshots lie in the machine's memory; the frozen encoder has read the prompts.",),
    )  # fmt: skip


BASES: dict[str, dict[str, Any]] = {
    "smollm2-135m-instruct": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""Published shapes of base models, so that a plan needs no download."""


@PLANNERS.register("dnd_lora")
def plan_loras(model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]) -> Planned:
    """One task after the other: the frozen base model with a LoRA on it.

    Raises:
        UserError: for a base model whose shape is not known here.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    if model["base_model"] not in BASES:
        raise UserError(f"no shape of '{model['base_model']}' to plan with\nKnown: {', '.join(BASES)}.")
    shape = dict(BASES[model["base_model"]])
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.pop("model_type"), **shape))
    adapter = LoraConfig(
        r=model["rank"], lora_alpha=2 * model["rank"], target_modules=model["target_modules"] or "all-linear",
        layers_to_transform=model["layers"], task_type="CAUSAL_LM",
    )  # fmt: skip
    # PEFT moves each new matrix to where it already is, which tensors without memory do not survive
    with mock.patch.object(nn.Module, "to", lambda module, *a, **k: module), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        network: nn.Module = get_peft_model(base, adapter)
    size, length = int(data["batch_size"]), int(data["max_length"])
    tokens_BL = torch.zeros(size, length, dtype=torch.int64)
    embeds_BLC = torch.randn(size, length, shape["hidden_size"])

    def loss() -> Tensor:
        logits_BLV = network(inputs_embeds=embeds_BLC, use_cache=False).logits
        return nn.functional.cross_entropy(logits_BLV.float().flatten(0, 1), tokens_BL.flatten())

    return Planned(
        network, loss, size, "tokens", length, len(data["tasks"]) * int(data["steps_per_task"]),
        assumptions=(f"Every text has the longest length, {length} tokens: an upper bound.",),
    )  # fmt: skip
