"""What a step of the teacher does, for `fulgurite plan`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...datamodules.gamecraft.camera import plucker_rays
from ..planned import PLANNERS, Planned, total_batches
from .conditions import PIXELS
from .module import build_transformer, flow_loss
from .transformer import GameCraftTransformer
from .vae import CLIP_LATENTS

PUBLISHED_SIZE = (704, 1216)
TEXT_TOKENS = 256  # HunyuanVideo's longest caption
SHORT_TEXT_TOKENS = 32


def _size(stages: dict[str, Any]) -> tuple[tuple[int, int], str]:
    """Height and width of the pictures, from the stage that records them, else the paper's."""
    for settings in stages.values():
        if isinstance(settings.get("size"), str) and "x" in settings["size"]:
            height, width = (int(side) for side in settings["size"].split("x"))
            return (height, width), f"Pictures are {height}x{width}, as the experiment records them."
    height, width = PUBLISHED_SIZE
    return PUBLISHED_SIZE, f"Pictures are {height}x{width}, as in the paper."


def _plan(
    network: GameCraftTransformer,
    data: dict[str, Any],
    trainer: dict[str, Any],
    stages: dict[str, Any],
    long_text: bool,
) -> Planned:
    (height, width), said = _size(stages)
    size, config = int(data["batch_size"]), network.config
    grid = (height // PIXELS, width // PIXELS)
    x0_BCTHW = torch.randn(size, 16, CLIP_LATENTS, *grid)
    history_BCNHW = torch.randn(size, 16, CLIP_LATENTS, *grid)
    k_BF33, c2w_BF44 = torch.randn(size, 33, 3, 3), torch.randn(size, 33, 4, 4)
    length = TEXT_TOKENS if long_text else SHORT_TEXT_TOKENS
    captions = (
        torch.randn(size, length, config.text_embed_dim),
        torch.ones(size, length, dtype=torch.bool),
        torch.randn(size, config.pooled_projection_dim),
    )
    tokens = 2 * CLIP_LATENTS * (grid[0] // 2) * (grid[1] // 2)

    def loss() -> Tensor:
        noise, sigma_B = torch.randn_like(x0_BCTHW), torch.rand(size)
        return flow_loss(plucker_rays, network, x0_BCTHW, noise, sigma_B, history_BCNHW, k_BF33, c2w_BF44, *captions)

    blocks: tuple[nn.Module, ...] = ()
    if network.is_gradient_checkpointing:
        blocks = (*network.transformer_blocks, *network.single_transformer_blocks)
        network.disable_gradient_checkpointing()  # launch/plan counts what is kept by block
    return Planned(
        network, loss, size, "video tokens", tokens, total_batches(data, trainer), copies=1, blocks=blocks,
        assumptions=(
            said,
            "Every sample has a clip of 33 frames as its history (some have one frame, or two clips).",
            f"Captions have {length} tokens.",
            "The autoencoder and the text encoders, which may run in each step, are not counted.",
        ),
    )  # fmt: skip


@PLANNERS.register("gamecraft")
def plan_teacher(
    model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]
) -> Planned:
    """A chunk of 33 frames after a clip of as many."""
    network = build_transformer(model["transformer"], None, model["camera_injection"])
    return _plan(network, data, trainer, stages, long_text=False)


@PLANNERS.register("gamecraft_sharded")
def plan_sharded(
    model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], stages: dict[str, Any]
) -> Planned:
    """The same at the published size, blocks checkpointed."""
    network = build_transformer(model["transformer"], None, "add")
    network.enable_gradient_checkpointing()
    return _plan(network, data, trainer, stages, long_text=True)
