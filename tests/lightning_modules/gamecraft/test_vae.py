"""The gameplay VAE: what diffusers' base computes, at widths that fit a real-time budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fulgurite.lightning_modules.gamecraft.vae import (
    CLIP_FRAMES,
    SIZES,
    GameplayVAE,
    patches,
    pictures,
    to_uint8,
)

TINY = {
    "block_out_channels": (8, 8, 16, 16),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "norm_num_groups": 4,
}


@pytest.fixture
def vae() -> GameplayVAE:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return GameplayVAE(**TINY).eval()


def clip(frames: int = CLIP_FRAMES) -> Tensor:
    return torch.randint(0, 256, (2, frames, 3, 16, 32), dtype=torch.uint8)


@torch.no_grad()
def test_shapes_of_clips_and_single_frames(vae: GameplayVAE) -> None:
    for frames, latents in ((33, 9), (1, 1)):
        z = vae.encode_clips(clip(frames))
        assert z.shape == (2, 16, latents, 2, 4)
        assert vae.decode_clips(z).shape == (2, frames, 3, 16, 32)


@torch.no_grad()
def test_bytes_and_floats_are_the_same_picture(vae: GameplayVAE) -> None:
    frames = clip(5)
    floats = frames.float() / 127.5 - 1
    torch.testing.assert_close(vae.encode_clips(frames), vae.encode_clips(floats))
    assert torch.equal(to_uint8(floats), frames)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@torch.no_grad()
def test_the_films_of_a_batch_do_not_see_each_other(vae: GameplayVAE) -> None:
    frames = clip()
    torch.testing.assert_close(vae.encode_clips(frames)[1:], vae.encode_clips(frames[1:]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_same_computation_as_the_base_at_equal_widths() -> None:
    widths = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    base = AutoencoderKLHunyuanVideo(**widths, mid_block_add_attention=True).eval()
    base.use_framewise_encoding = base.use_framewise_decoding = False
    ours = GameplayVAE(**widths, decoder_block_out_channels=None, mid_block_add_attention=True).eval()
    ours.load_state_dict(base.state_dict())
    frames = clip()
    z = base.encode(frames.transpose(1, 2).float() / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(ours.encode_clips(frames), z * base.config.scaling_factor)
    frames = base.decode(z).sample.transpose(1, 2)
    torch.testing.assert_close(ours.decode_clips(z * base.config.scaling_factor), frames, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_statistics_normalise_each_channel_and_are_saved(vae: GameplayVAE, tmp_path: Path) -> None:
    raw = vae.encode(vae.as_input(clip())).latent_dist.mode()
    vae.set_latent_statistics(raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4)))
    z = vae.normalise(raw)
    torch.testing.assert_close(z.mean((0, 2, 3, 4)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3, 4)), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(vae.denormalise(z), raw, atol=1e-5, rtol=1e-5)
    vae.save_pretrained(tmp_path)
    loaded = GameplayVAE.from_pretrained(tmp_path)
    assert list(loaded.config.decoder_block_out_channels) == [8, 8, 8, 8]
    assert torch.equal(loaded.normalise(raw), z)
    assert torch.equal(loaded.decode_clips(z), vae.decode_clips(z))


@torch.no_grad()
def test_sampling_from_the_posterior_follows_its_generator(vae: GameplayVAE) -> None:
    frames = clip(1)
    first, again = (vae.encode_clips(frames, sample=True, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, vae.encode_clips(frames))


@torch.no_grad()
def test_half_precision_decodes_the_same_picture(vae: GameplayVAE) -> None:
    z = torch.randn(1, 16, 2, 2, 4)
    wanted = vae.decode_clips(z)
    half = nn.Module.to(vae, torch.bfloat16).decode_clips(z)
    assert half.dtype == torch.bfloat16
    assert (half.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean().clamp(min=1)


def test_decoding_a_chunk_costs_at_most_40_gflop() -> None:
    with torch.device("meta"):
        vae = GameplayVAE(**SIZES["student"])
        latents = torch.empty(1, 16, 9, 8, 14)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert vae.decode(latents).sample.shape == (1, 3, 33, 64, 112)
    assert counter.get_total_flops() <= 40e9


@torch.no_grad()
def test_patches_come_back_as_they_were_and_the_sizes_stay(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 5, 8, 12)
    assert torch.equal(pictures(patches(x, 2), 2), x)
    assert torch.equal(patches(x, 2)[:, :4, 0, 1, 2], x[:, 0, 0, 2:4, 4:6].flatten(1))
    widths = {"block_out_channels": (8, 8, 16), "decoder_block_out_channels": (8, 8, 8)}
    vae = GameplayVAE(**widths, patch_size=2, spatial_padding="zeros").eval()
    frames = clip()
    z = vae.encode_clips(frames)
    assert z.shape == (len(frames), 16, 9, frames.shape[-2] // 8, frames.shape[-1] // 8)
    assert z.shape == vae.latent_shape(frames.transpose(1, 2))
    assert vae.decode_clips(z).shape == frames.shape
    vae.save_pretrained(tmp_path)
    assert torch.equal(GameplayVAE.from_pretrained(tmp_path).eval().encode_clips(frames), z)


def test_mixed_precision_keeps_activations_short(vae: GameplayVAE) -> None:
    norm = vae.encoder.conv_norm_out
    x = torch.randn(1, norm.num_channels, 2, 3, 4)
    torch.testing.assert_close(norm(x), torch.nn.GroupNorm.forward(norm, x))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_zeros_instead_of_copies_around_the_picture() -> None:
    widths = {"block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8), "patch_size": 2}
    torch.manual_seed(0)
    copies, zeros = GameplayVAE(**widths), GameplayVAE(**widths, spatial_padding="zeros")
    zeros.load_state_dict(copies.state_dict())
    x = torch.randn(1, 12, 5, 8, 8)
    a, b = copies.encoder.conv_in(x), zeros.encoder.conv_in(x)
    torch.testing.assert_close(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1])
    wanted = torch.nn.functional.conv3d(
        torch.nn.functional.pad(torch.cat([x[:, :, :1]] * 2 + [x], 2), (1, 1, 1, 1)),
        *copies.encoder.conv_in.conv.parameters(),
    )
    torch.testing.assert_close(b, wanted)
