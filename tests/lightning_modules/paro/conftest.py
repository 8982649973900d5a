"""Small random GameCraft weights with start pictures, and captures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("diffusers")

from fulgurite.datamodules.paro.captures import CaptureStore
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.lightning_modules.paro.capture import capture

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with random weights, none zero: 3 layers of 2 heads, 108 tokens of a picture and 16 of text."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformer = GameCraftTransformer.of_size("tiny").eval()
    for parameter in transformer.parameters():
        if parameter.count_nonzero() == 0:
            nn.init.normal_(parameter, std=0.2)
    bank = CaptionEncoder()
    bank._states_PLC, bank._mask_PL = torch.randn(2, 16, 384).half(), torch.arange(16) < torch.tensor([[2], [9]])
    bank._rows = {"": 0, "a hall": 1}
    widths = {"block_out_channels": (4, 4, 4, 4), "decoder_block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2}
    vae = GameplayVAE(**widths).eval()
    with torch.no_grad():
        vae.decoder.conv_out.conv.weight *= 8  # so that the picture shows what the latents are
    pipe = GameCraftPipeline(transformer, vae, bank, HEIGHT, WIDTH, num_inference_steps=4, guidance_w=1.0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    pipe.save_pretrained(folder)
    (folder / "starts").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "starts" / f"room{seed}.png")
    return folder


@pytest.fixture(scope="session")
def captures(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures of its four films, at three bins."""
    folder = tmp_path_factory.mktemp("captures") / "store"
    capture(weights, folder, num_bins=3)
    assert len(CaptureStore(folder).handles) == 4 * 3 * 3
    return folder
