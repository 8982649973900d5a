"""Small policies, built from nothing: Qwen2.5-VL's parts at a size that two CPU cores or one GPU train in minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ....registry import UserError
from .pictures import PictureSettings
from .policy import VikiPolicy
from .text import IMAGE, VIDEO, VISION_END, VISION_START, Texts

_HEAD_DIM = 32
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"vocab": 768, "width": 128, "layers": 3, "vision_width": 128, "vision_depth": 2, "patch": 14},
    "small": {"vocab": 1024, "width": 256, "layers": 6, "vision_width": 192, "vision_depth": 4, "patch": 14},
}
"""vocab: at most so many tokens; width: of the text model; vision_width, vision_depth, patch: of the vision tower."""


def small_policy(texts: Iterable[str], size: str = "tiny", seed: int = 0) -> VikiPolicy:
    """A policy with random weights and a vocabulary learned from texts.

    Args:
        texts: prompts and answers of training records, as the policy will see them.
        size: of `SIZES`.
        seed: of the weights.

    Raises:
        UserError: if there is no such size.
    """
    if size not in SIZES:
        raise UserError(f"no size '{size}' of policy\nsizes: {' '.join(SIZES)}")
    shape = SIZES[size]
    known = Texts.train(texts, shape["vocab"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(small_config(known, **shape))
    pictures = PictureSettings(patch_size=shape["patch"], min_pixels=(4 * shape["patch"]) ** 2)
    return VikiPolicy(model, known, pictures)


def small_config(
    texts: Texts, *, vocab: int, width: int, layers: int, vision_width: int, vision_depth: int, patch: int
) -> Qwen2_5_VLConfig:
    """A configuration of Qwen2.5-VL; every third block of the vision tower and the last one see the whole picture."""
    heads = width // _HEAD_DIM
    text = {
        "vocab_size": vocab, "hidden_size": width, "intermediate_size": 11 * width // 4, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads // 2, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
        "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": texts.end, "pad_token_id": texts.pad,
    }  # fmt: skip
    vision = {
        "depth": vision_depth, "hidden_size": vision_width, "intermediate_size": 3 * vision_width,
        "num_heads": vision_width // _HEAD_DIM, "patch_size": patch, "spatial_merge_size": 2, "window_size": 8 * patch,
        "fullatt_block_indexes": sorted({*range(2, vision_depth, 3), vision_depth - 1}), "out_hidden_size": width,
    }  # fmt: skip
    special = texts.special
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=special[IMAGE], video_token_id=special[VIDEO],
        vision_start_token_id=special[VISION_START], vision_end_token_id=special[VISION_END], tie_word_embeddings=True,
    )  # fmt: skip
