"""What a step of supervised finetuning does, for `fulgurite plan`.

Axis legend: I picture, M patch of a picture, T picture token, D feature, B sample, N place in prompt and answer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ...registry import UserError
from ..planned import PLANNERS, Planned, total_batches
from .policy.small import SIZES, small_config
from .policy.text import Texts
from .policy.vision import same_shape

PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "text_config": {
            "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        },
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "text_config": {
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        },
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Published shapes, so that a plan needs no download."""
TEXT_TOKENS = {"full": 900, "short": 100}
ANSWER_TOKENS = {"full": 350, "short": 200}
PICTURE = (308, 168)


@PLANNERS.register("viki_sft")
def plan_sft(model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]) -> Planned:
    """Prompts with one picture each, and the demonstrations' answers.

    Raises:
        UserError: for a policy whose shape is not known here.
    """
    config = _config(model["policy"])
    network = Qwen2_5_VLForConditionalGeneration(config)
    vision, size = network.model.visual, int(data["batch_size"])
    eyes: Any = config.vision_config
    patch, merge = eyes.patch_size, eyes.spatial_merge_size
    grid = _grid(stages, model["max_pixels"], patch * merge, merge)
    blind = bool(data["blind"])
    words = 0 if blind or not model["picture_words"] else config.get_text_config().vocab_size
    head = nn.Linear(config.get_text_config().hidden_size, words) if words else None
    whole = nn.ModuleList([network, *([head] if head is not None else [])])
    if model["freeze_vision"]:
        vision.requires_grad_(False)
    channels = 3 * eyes.temporal_patch_size * patch**2
    picture_IMC = torch.randn(size, math.prod(grid), channels)
    text, answer = TEXT_TOKENS[data["prompts"]], ANSWER_TOKENS[data["prompts"]]
    tokens_BN = torch.zeros(size, text + answer, dtype=torch.int64)
    pictures = 0 if blind else math.prod(grid) // merge**2
    positions = torch.zeros(3, size, pictures + text + answer, dtype=torch.int64)

    def loss() -> Tensor:
        embeds_BND = network.model.language_model.embed_tokens(tokens_BN)
        extra: Tensor | float = 0.0
        if not blind:
            with torch.set_grad_enabled(not model["freeze_vision"]):
                features_BTD = same_shape(vision, picture_IMC, grid)
            embeds_BND = torch.cat([features_BTD.to(embeds_BND.dtype), embeds_BND], 1)
            if head is not None:
                logits_BV = head(features_BTD).float().amax(1)
                extra = F.binary_cross_entropy_with_logits(logits_BV, torch.zeros_like(logits_BV))
        out = network.model.language_model(inputs_embeds=embeds_BND, position_ids=positions, use_cache=False)
        log_p = network.lm_head(out.last_hidden_state[:, -answer:]).float().log_softmax(-1)
        return -log_p.gather(2, tokens_BN[:, -answer:, None]).mean() + extra

    blocks = tuple(network.model.language_model.layers) if model["gradient_checkpointing"] else ()
    return Planned(
        whole, loss, size, "tokens", pictures + text + answer, total_batches(data, trainer), blocks=blocks,
        assumptions=(
            f"A sample has {'no picture' if blind else f'one picture of {pictures} tokens'}, {text} tokens of prompt "
            f"and {answer} of answer; a batch is as long as its longest sample.",
        ),
    )  # fmt: skip


def _config(policy: str) -> Qwen2_5_VLConfig:
    if policy in SIZES:
        known = Texts.train(["which robots take part"], SIZES[policy]["vocab"])
        return small_config(known, **SIZES[policy])
    if policy in PUBLISHED:
        return Qwen2_5_VLConfig(**PUBLISHED[policy])
    raise UserError(f"no shape of '{policy}' to plan with\nKnown: {', '.join([*SIZES, *PUBLISHED])}.")


def _grid(stages: dict[str, Any], max_pixels: int | None, side: int, merge: int) -> tuple[int, int]:
    """Rows and columns of patches of a picture: as the experiment draws it, or as large as it may be."""
    drawn = [s["size"] for s in stages.values() if isinstance(s.get("size"), str) and "x" in s["size"]]
    if drawn or max_pixels is None:
        width, height = (int(part) for part in drawn[0].split("x")) if drawn else PICTURE
    else:
        height = width = math.isqrt(max_pixels)
    return max(1, height // side) * merge, max(1, width // side) * merge
