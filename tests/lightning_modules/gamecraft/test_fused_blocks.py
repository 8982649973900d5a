"""Blocks for a GPU: the same pictures and gradients as without them, with channels last all the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from fulgurite.lightning_modules.gamecraft import fused_blocks
from fulgurite.lightning_modules.gamecraft.autoencoder import autoencoder_loss
from fulgurite.lightning_modules.gamecraft.fused_blocks import convolved, fuse_blocks, norm_silu, with_channels_last
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

WIDTHS = {"block_out_channels": (8, 8, 16), "decoder_block_out_channels": (8, 8, 8), "norm_num_groups": 4}


@pytest.mark.parametrize("num_frames", [9, 1])
def test_fused_blocks_are_the_same_function(num_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_blocks, "compiled", lambda function: function)
    torch.manual_seed(0)
    plain = GameplayVAE(**WIDTHS, patch_size=2, spatial_padding="zeros")
    fused = copy.deepcopy(plain)
    fuse_blocks(fused)
    formats: list[bool] = []

    def watched(padded: Tensor, causal: Any) -> Tensor:
        out = convolved(padded, causal)
        out.register_hook(lambda gradient: formats.append(gradient.is_contiguous(memory_format=torch.channels_last_3d)))
        formats.append(padded.is_contiguous(memory_format=torch.channels_last_3d))
        return out

    monkeypatch.setattr(fused_blocks, "convolved", watched)
    x = torch.rand(2, 3, num_frames, 16, 32) * 2 - 1
    noise = torch.randn(plain.latent_shape(x))
    losses = [autoencoder_loss(20.0, 0.0, 1e-5, vae, x, noise)[0] for vae in (plain, fused)]
    for loss in losses:
        loss.backward()
    assert len(formats) == 56 and sum(formats) >= 54  # gradients of two small ends come otherwise
    torch.testing.assert_close(losses[1], losses[0])
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    assert wanted.keys() == dict(fused.named_parameters()).keys()
    for name, p in fused.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], atol=1e-4, rtol=1e-3)


def test_one_compilation_serves_every_batch_size() -> None:
    norm = torch.nn.GroupNorm(2, 8)
    settings = (norm.weight, norm.bias, 2, norm.eps, 0)
    compilations = torch._dynamo.utils.counters["stats"]
    found = []
    for size in (2, 3, 5):
        x = torch.randn(size, 8, 3, 2, 4)
        made = with_channels_last(norm_silu, x, *settings, any_batch=True)
        torch.testing.assert_close(made, torch.nn.functional.silu(norm(x)), atol=1e-5, rtol=1e-4)
        found.append(compilations["unique_graphs"])
    assert found[0] > 0 and found[1] == found[2] == found[0]


def test_other_padding_is_refused() -> None:
    with pytest.raises(UserError, match="spatial_padding 'zeros'"):
        fuse_blocks(GameplayVAE(**WIDTHS))
