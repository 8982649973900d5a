"""What a capture of CogVideoX-5B takes, for `fulgurite plan`: the published setting trains nothing."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from ...registry import UserError
from ..planned import PLANNERS, Planned

PUBLISHED: dict[str, Any] = {
    "num_attention_heads": 48, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "time_embed_dim": 512,
    "text_embed_dim": 4096, "num_layers": 42, "sample_width": 90, "sample_height": 60, "sample_frames": 49,
    "max_text_seq_length": 226, "use_rotary_positional_embeddings": True,
}  # fmt: skip
NUM_PROMPTS = 4


@PLANNERS.register("paro capture")
def plan_capture(
    model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]
) -> Planned:
    """Denoising steps of a film, with and without the prompt.

    Raises:
        UserError: for weights whose shape is not known here.
    """
    if "cogvideox-5b" not in str(model.get("model", "")).lower():
        raise UserError(f"no shape of '{model.get('model')}' to plan a capture with")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        network: Any = CogVideoXTransformer3DModel(**PUBLISHED)
    finally:
        torch.set_default_dtype(before)
    rows, columns = model["height"] // 16, model["width"] // 16
    latents = (model["num_frames"] - 1) // 4 + 1
    tokens = latents * rows * columns
    video_BTCHW = torch.randn(2, latents, 16, 2 * rows, 2 * columns, dtype=torch.bfloat16)
    text_BNC = torch.randn(2, PUBLISHED["max_text_seq_length"], PUBLISHED["text_embed_dim"], dtype=torch.bfloat16)
    rotary = (torch.ones(tokens, 64), torch.ones(tokens, 64))

    def step() -> Tensor:
        out: Tensor = network(video_BTCHW, text_BNC, torch.ones(2), image_rotary_emb=rotary, return_dict=False)[0]
        return out

    return Planned(
        network, step, 2, "video tokens", tokens, NUM_PROMPTS * model["num_steps"], trains=False,
        assumptions=(
            f"{NUM_PROMPTS} prompts, two to calibrate and two to test; text encoder, autoencoder and writing to disk "
            "are not counted.",
        ),
    )  # fmt: skip
