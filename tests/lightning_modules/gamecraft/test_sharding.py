"""The transformer over several ranks: built on meta, sharded by FSDP2, and the same numbers as on one."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.datamodules.draws import DrawLoader
from fulgurite.kernels import api
from fulgurite.kernels.adapters.follow import attention_layers
from fulgurite.kernels.paro.model_hash import model_hash
from fulgurite.kernels.paro.plan import Plan, PlanMeta, pack
from fulgurite.launch.callbacks import ResumePoint
from fulgurite.lightning_modules.gamecraft.averaging import MovingAverage
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.chunk_training import predict
from fulgurite.lightning_modules.gamecraft.release import read_sampling
from fulgurite.lightning_modules.gamecraft.sharded import PublishedCaptions, ShardedGameCraftModule
from fulgurite.lightning_modules.gamecraft.sharding import (
    checkpoint_activations,
    is_sharded,
    load_shards,
    on_meta,
    save_shards,
    shard,
)
from fulgurite.lightning_modules.gamecraft.transformer import SIZES, GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

NARROW: dict[str, Any] = {"text_embed_dim": 32, "pooled_projection_dim": 32}
RANKS, STEPS = 2, 2


def inputs() -> tuple[Tensor, ...]:
    """A batch of two: noisy chunk, noise level, history, rays, captions, target."""
    g = torch.Generator().manual_seed(5)
    shapes = ((16, 9, 4, 4), (), (16, 1, 4, 4), (33, 6, 32, 32), (8, 32), (32,), (16, 9, 4, 4))
    noisy, sigma, history, rays, states, pooled, target = (torch.randn(2, *s, generator=g) for s in shapes)
    return noisy, sigma.sigmoid(), history, rays, states, torch.ones(2, 8, dtype=torch.bool), pooled, target


def losses_of(network: GameCraftTransformer, average: MovingAverage, part: slice) -> list[float]:
    """Train a few steps on a part of the batch; the loss of each step, over all ranks."""
    noisy, sigma, history, rays, states, mask, pooled, target = (x[part] for x in inputs())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    found = []
    for step in range(STEPS):
        out = predict(network, noisy, sigma, history, rays, (states, mask, pooled))
        loss = torch.nn.functional.mse_loss(out, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        average.update(network, step + 1)
        mean = loss.detach().clone()
        if distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        found.append(float(mean))
    return found


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def one_rank(rank: int, folder: Path, port: int) -> None:
    """What each process does: build on meta, shard, fill, train, save; the first notes the losses."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    mesh = distributed.device_mesh.init_device_mesh("cpu", (RANKS,))
    with on_meta():
        network = GameCraftTransformer.of_size("tiny", **NARROW)
    network.train()
    average = MovingAverage(network, 0.9)
    checkpoint_activations(network)
    for one in (network, average.average):
        load_shards(shard(one, mesh, bf16=False), folder / "start", torch.device("cpu"))
    held = sum(p.to_local().numel() for p in network.parameters())
    losses = losses_of(network, average, slice(rank, rank + 1))
    save_shards(average.average, folder / "end")
    if rank == 0:
        told = {"losses": losses, "held": held, "sharded": is_sharded(network)}
        (folder / "told.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_like_one_and_each_holds_half(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GameCraftTransformer.of_size("tiny", **NARROW).train()
    network.save_pretrained(tmp_path / "start")
    average = MovingAverage(network, 0.9)
    torch.multiprocessing.spawn(one_rank, (tmp_path, free_port()), RANKS)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["losses"] == pytest.approx(losses_of(network, average, slice(None)), rel=1e-5)
    assert told["losses"][1] < told["losses"][0]
    count = sum(p.numel() for p in network.parameters())
    assert told["sharded"] and not is_sharded(network) and told["held"] == pytest.approx(count / RANKS, rel=0.02)
    saved = GameCraftTransformer.from_pretrained(tmp_path / "end").state_dict()
    expected = average.average.state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.allclose(saved[name], expected[name], atol=1e-5) for name in expected)


def test_hunyuanvideo_s_weights_are_the_model_that_they_were(tmp_path: Path) -> None:
    """The 17 new channels start at zero, and so does the camera: the base's answer for the noise channels alone."""
    torch.manual_seed(0)
    shape = {k: v for k, v in GameCraftTransformer.of_size("tiny", **NARROW).config.items() if k != "camera_injection"}
    base = HunyuanVideoTransformer3DModel(**{k: v for k, v in shape.items() if k[0] != "_"} | {"in_channels": 16})
    base.save_pretrained(tmp_path / "base", max_shard_size="1MB")
    assert (tmp_path / "base" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    with on_meta():
        network = GameCraftTransformer.of_size("tiny", **NARROW)
    load_shards(network, tmp_path / "base", torch.device("cpu"))
    noisy, sigma, history, rays, states, mask, pooled, _ = inputs()
    guidance = torch.full((2,), 1000.0)
    hidden = network.model_input(noisy, history)
    with torch.no_grad():
        tokens = network.camera_tokens(rays, 1)
        made = network(hidden, sigma * 1000, states, mask, pooled, camera_tokens=tokens, guidance=guidance)
        (expected,) = base(hidden[:, :16], sigma * 1000, states, mask, pooled, guidance, return_dict=False)
    assert tokens.abs().max() == 0 and torch.allclose(made, expected, atol=1e-5)
    assert network.camera_encoder.conv_in.weight.std() > 0


def test_hunyuanvideo_s_autoencoder_opens_with_its_own_decoder(tmp_path: Path) -> None:
    """As gamecraft/paper says: one line more in its config.json."""
    torch.manual_seed(0)
    base = AutoencoderKLHunyuanVideo(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
    base.eval().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_block_out_channels": None}))
    ours = GameplayVAE.from_pretrained(tmp_path).eval()
    latents = torch.randn(1, 16, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, made = (vae.decode(latents, return_dict=False)[0] for vae in (base, ours))
    assert made.shape == (1, 3, 5, 16, 16) and torch.allclose(made, expected, atol=1e-5)


def test_weights_of_another_size_or_none_are_refused(tmp_path: Path) -> None:
    GameCraftTransformer.of_size("tiny", **NARROW).save_pretrained(tmp_path / "small")
    with on_meta():
        deeper = GameCraftTransformer.of_size("tiny", **NARROW | {"num_layers": 2})
        wider = GameCraftTransformer.of_size("tiny", **NARROW | {"text_embed_dim": 64})
    with pytest.raises(UserError, match=r"these weights lack transformer_blocks\.1\."):
        load_shards(deeper, tmp_path / "small", torch.device("cpu"))
    with pytest.raises(UserError, match=r"is \[64, 32\], the network's \[64, 64\]"):
        load_shards(wider, tmp_path / "small", torch.device("cpu"))
    with on_meta():
        other = GameCraftTransformer.of_size("tiny", **NARROW)
    with pytest.raises(UserError, match="no weights of a transformer can be read"):
        load_shards(other, tmp_path / "nowhere", torch.device("cpu"))


def test_published_captions_are_the_pipeline_s_and_the_empty_one_is_encoded_once() -> None:
    asked: list[list[str]] = []

    def encode_prompt(captions: list[str], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(captions)
        size = len(captions)
        return torch.ones(size, 256, 8).bfloat16(), torch.zeros(size, 4).bfloat16(), torch.ones(size, 256).int()

    parts = {"text_encoder": torch.nn.Linear(1, 1), "text_encoder_2": torch.nn.Linear(1, 1)}
    text = PublishedCaptions(SimpleNamespace(encode_prompt=encode_prompt, **parts))
    states, mask, pooled = text(["a hall", "a yard"])
    assert states.shape == (2, 256, 8) and pooled.shape == (2, 4) and mask.dtype == torch.bool
    assert states.dtype == pooled.dtype == torch.float32
    text([""]), text([""])
    assert asked == [["a hall", "a yard"], [""]]


class ToyPlay(LightningDataModule):
    """Chunks of noise whose latents are a function of the draw's number; each rank gets half of the draws."""

    class Draws(torch.utils.data.Dataset):
        def __getitem__(self, draw: int) -> dict[str, Tensor]:
            latents = torch.randn(16, 9, 4, 4, generator=torch.Generator().manual_seed(draw))
            return {"latents": latents, "history_latents": torch.zeros(16, 1, 4, 4)}

    @staticmethod
    def collate(items: list[dict[str, Tensor]]) -> dict[str, Any]:
        batch: dict[str, Any] = {k: torch.stack([item[k] for item in items]) for k in items[0]}
        k, c2w = (torch.eye(size).expand(len(items), 33, size, size) for size in (3, 4))
        return batch | {"head": "frame", "intrinsics": k, "c2w": c2w, "captions": ["a hall"] * len(items)}

    def train_dataloader(self) -> DrawLoader:
        return DrawLoader(self.Draws(), 2, 3, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        draws = self.Draws()
        return DataLoader([self.collate([draws[90 + i]]) for i in range(RANKS)], batch_size=None)  # type: ignore[arg-type]


def plan_of(network: GameCraftTransformer) -> Plan:
    """A plan that keeps all blocks of ToyPlay's chunks, one frame before nine, with 16 caption tokens."""
    meta = PlanMeta((10, 2, 2), 16, "suffix", (), model_hash=model_hash(network))
    per_mask, orders = torch.ones(1, 3, 2), torch.zeros(3, 2, dtype=torch.uint8)
    masks = pack(torch.ones(1, 3, 2, 1, 1, dtype=torch.bool))
    metric, empty = torch.ones(3, 2, 6), torch.zeros(3, 2, dtype=torch.bool)
    return Plan(meta, masks, orders, empty, per_mask, per_mask, per_mask, metric, metric, metric)


def fit_on_one_rank(rank: int, folder: Path, port: int) -> None:
    """What each process of a run does with Lightning's strategy."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "GROUP_RANK": "0"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test"}  # Lightning then takes the processes for torchrun's
    torch.set_num_threads(1)
    seed_everything(0)
    module = ShardedGameCraftModule(
        str(folder / "start"), {**SIZES["tiny"], **NARROW}, warmup_steps=1,
        attention={"*": "sdpa", "single_transformer_blocks.*": "paro"}, plan=str(folder / "plan.safetensors"),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
    )  # fmt: skip
    module.captions = CaptionEncoder("tiny-random-encoder")
    strategy = ModelParallelStrategy(RANKS, 1, save_distributed_checkpoint=False)
    trainer = Trainer(
        accelerator="cpu", devices=RANKS, strategy=strategy, precision="bf16-mixed", max_epochs=1, logger=False,
        default_root_dir=folder / "fit", enable_progress_bar=False, gradient_clip_val=1.0, log_every_n_steps=1,
        callbacks=[ResumePoint(2)],
    )  # fmt: skip
    trainer.fit(module, datamodule=ToyPlay())
    losses = {name: float(trainer.callback_metrics[f"{name}/loss"]) for name in ("train", "val")}
    backends = [type(one.processor.backend).__name__ for one in attention_layers(module.ema.average).values()]
    told = {**losses, "sharded": is_sharded(module.network), "backends": backends, "fell_back": sorted(api._told)}
    (folder / f"told{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_lightning_s_strategy_trains_saves_and_exports_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = GameCraftTransformer.of_size("tiny", **NARROW)
    start.save_pretrained(tmp_path / "start")
    plan_of(start).save(tmp_path / "plan.safetensors")
    torch.multiprocessing.spawn(fit_on_one_rank, (tmp_path, free_port()), RANKS)
    told = [json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in range(RANKS)]
    assert all(t["sharded"] and 0 < t["train"] < 10 and 0 < t["val"] < 10 for t in told)
    assert told[0]["backends"] == ["SdpaAttention", "ParoAttention", "ParoAttention"] and not told[0]["fell_back"]
    assert told[0]["train"] != told[1]["train"] and told[0]["val"] == told[1]["val"]
    exported = GameCraftTransformer.from_pretrained(tmp_path / "fit" / "transformer").state_dict()
    moved = [name for name, tensor in start.state_dict().items() if not torch.equal(tensor, exported[name])]
    assert "transformer_blocks.0.attn.to_q.weight" in moved
    assert read_sampling(tmp_path / "fit")["num_inference_steps"] == 50
    checkpoint = torch.load(tmp_path / "fit" / "checkpoints" / "last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    assert state["network.transformer_blocks.0.attn.to_q.weight"].shape == (64, 64)
    assert state["ema.average.proj_out.weight"].shape == exported["proj_out.weight"].shape
    assert checkpoint["global_step"] == 3


def test_another_strategy_is_refused(tmp_path: Path) -> None:
    GameCraftTransformer.of_size("tiny", **NARROW).save_pretrained(tmp_path / "start")
    module = ShardedGameCraftModule(str(tmp_path / "start"), {**SIZES["tiny"], **NARROW})
    assert all(p.is_meta for p in module.network.parameters())
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(UserError, match=r"set trainer\.strategy to"):
        trainer.fit(module, datamodule=ToyPlay())
