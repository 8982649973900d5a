"""The camera encoder: the paper's layers, zero at the start, and a history that saw no rays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fulgurite.lightning_modules.gamecraft.camera_encoder import CameraEncoder, pool_pairs


@pytest.fixture
def trained() -> CameraEncoder:
    """An encoder whose zero-initialised end has moved."""
    torch.manual_seed(0)
    encoder = CameraEncoder(width=24)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def test_as_many_parameters_as_published() -> None:
    assert sum(p.numel() for p in CameraEncoder(3072).parameters()) == 294_257


def test_33_frames_give_9_latent_frames_of_zero_tokens_at_the_start() -> None:
    tokens = CameraEncoder(width=24)(torch.randn(2, 33, 6, 64, 112))
    assert tokens.shape == (2, 9 * 4 * 7, 24)
    assert tokens.count_nonzero() == 0


def test_the_end_learns_although_it_starts_at_zero() -> None:
    encoder = CameraEncoder(width=24)
    encoder(torch.randn(1, 33, 6, 32, 32)).sum().backward()
    assert encoder.conv_out.weight.grad is not None
    assert encoder.conv_out.weight.grad.abs().sum() > 0


def test_time_is_pooled_in_pairs_after_the_first_frame() -> None:
    frames = torch.arange(5.0).view(1, 5, 1, 1, 1)
    assert pool_pairs(frames).flatten().tolist() == [0.0, 1.5, 3.5]
    assert pool_pairs(frames[:, :4]).flatten().tolist() == [0.5, 2.5]
    assert pool_pairs(pool_pairs(torch.zeros(1, 33, 1, 1, 1))).shape[1] == 9


def test_a_latent_frame_sees_its_own_frames_only(trained: CameraEncoder) -> None:
    rays = torch.randn(1, 33, 6, 32, 32)
    changed = rays.clone()
    changed[:, 13:17] += 1  # frames 13 to 16 are latent frame 4
    differs = (trained(rays) - trained(changed)).reshape(1, 9, -1).abs().amax(-1)[0] > 1e-6
    assert differs.nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("num_latents", [1, 9, 18])
@pytest.mark.parametrize("as_channels", [False, True])
def test_the_history_gets_the_response_to_zero_rays(num_latents: int, as_channels: bool) -> None:
    torch.manual_seed(1)
    encoder = CameraEncoder(width=24, as_channels=as_channels)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    rays = torch.randn(2, 33, 6, 32, 48)
    zeros = torch.zeros(2, 4 if num_latents == 1 else 33, 6, 32, 48)
    axis = 2 if as_channels else 1
    wanted = torch.cat([encoder(zeros)] * max(1, num_latents // 9), axis)
    given = encoder.history(rays, num_latents)
    assert given.abs().sum() > 0
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)
