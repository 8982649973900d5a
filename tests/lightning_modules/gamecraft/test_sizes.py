"""Pictures larger than 64x112: a training step, the camera, the autoencoder and the judge at 128x224 and 256x448."""

from __future__ import annotations

import pytest
import torch

from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, plucker_rays, trajectory
from fulgurite.launch.config.experiment import resolve
from fulgurite.lightning_modules.gamecraft.conditions import encode_batch
from fulgurite.lightning_modules.gamecraft.inverse_dynamics import InverseDynamicsNet
from fulgurite.lightning_modules.gamecraft.module import flow_loss
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE

SIZES = [(128, 224, 1008), (256, 448, 4032)]  # height, width, tokens of a chunk


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("height", "width", "chunk_tokens"), SIZES)
def test_one_training_step_from_frames_reaches_every_weight(height: int, width: int, chunk_tokens: int) -> None:
    torch.manual_seed(0)
    vae = GameplayVAE(block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4), norm_num_groups=2)
    shape = {"num_single_layers": 1, "text_embed_dim": 32, "pooled_projection_dim": 32}
    network = GameCraftTransformer.of_size("tiny", **shape)
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    frames = torch.randint(0, 256, (2, 33, 3, height, width), dtype=torch.uint8)
    x0, history = encode_batch({"frames": frames[:1], "history": frames[1:]}, vae)
    assert x0.shape == history.shape == (1, 16, 9, height // 8, width // 8)
    k, c2w, _ = trajectory(Chord.of(w=0.8, left=0.5), 33, camera=ShearPitchCamera(height, width))
    cameras = torch.tensor(k, dtype=torch.float32)[None], torch.tensor(c2w, dtype=torch.float32)[None]
    tokens = network.camera_tokens(plucker_rays(*cameras, height, width), 9)
    assert tokens.shape[1] == 2 * chunk_tokens
    captions = torch.randn(1, 8, 32), torch.ones(1, 8, dtype=torch.bool), torch.randn(1, 32)
    loss = flow_loss(
        plucker_rays, network, x0, torch.randn_like(x0), torch.full((1,), 0.7), history, *cameras, *captions
    )
    loss.backward()
    assert 0.1 < loss.item() < 10
    ends = (network.camera_encoder.conv_out, network.x_embedder.proj, network.transformer_blocks[0].attn.to_q)
    assert all(float(layer.weight.grad.abs().max()) > 0 for layer in ends)


@pytest.mark.parametrize(("height", "width"), [s[:2] for s in SIZES])
def test_the_judge_reads_large_pictures_at_its_own_size(height: int, width: int) -> None:
    torch.manual_seed(0)
    small = torch.randint(0, 256, (1, 3, 3, 64, 112), dtype=torch.uint8)
    large = small.repeat_interleave(height // 64, -2).repeat_interleave(width // 112, -1)
    judge = InverseDynamicsNet(width=4, height=64, picture_width=112)
    for of_large, of_small in zip(judge.measure(large), judge.measure(small), strict=True):
        assert torch.allclose(of_large, of_small, atol=1e-4)
    own = InverseDynamicsNet(width=4, height=height, picture_width=width)
    motion, features = own.measure(large)
    assert motion.shape == (1, 2, 4) and features.shape == (1, 64) and bool(motion.isfinite().all())


def test_gamecraft_large_has_its_8064_tokens_and_takes_nothing_from_other_sizes() -> None:
    large, gpu = resolve("gamecraft/large"), resolve("gamecraft/gpu")
    record = large.stages[0].settings.to_dict()
    height, width = map(int, record["size"].split("x"))
    assert 2 * 9 * (height // 16) * (width // 16) == 8064
    assert [s.name for s in large.stages] == ["record", "vae", "encode", "teacher"]
    ours, theirs = ({s.name: s.digest(0) for s in e.stages} for e in (large, gpu))
    assert ours["record"] != theirs["record"] and ours["teacher"] != theirs["teacher"]
