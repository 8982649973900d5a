"""Latents of a data set: the same as encoding clip by clip, resumable, forwards and backwards, and trained on."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.datamodules.gamecraft.episode import Episode
from fulgurite.datamodules.gamecraft.latents import LatentStore, backwards
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.module import GameplayClipDataModule
from fulgurite.datamodules.gamecraft.shards import ShardWriter
from fulgurite.lightning_modules.gamecraft import encode as encode_module
from fulgurite.lightning_modules.gamecraft.conditions import encode_batch, encode_history
from fulgurite.lightning_modules.gamecraft.encode import encode, load_vae
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

HEIGHT = WIDTH = 16


def make_episode(number: int, num_clips: int) -> Episode:
    rng = numpy.random.default_rng(number)
    frames = rng.integers(0, 256, (33 * num_clips, HEIGHT, WIDTH, 3), dtype=numpy.uint8)
    k, c2w, _ = trajectory(Chord.of(w=0.5), len(frames), camera=ShearPitchCamera(HEIGHT, WIDTH))
    actions = numpy.tile(Chord.of(w=0.5).vector(), (num_clips, 1))
    meta = {"game": "toy", "map": "one", "kind": "recorded"}
    pitch = numpy.zeros(len(frames), numpy.float32)
    return Episode(f"e{number}", frames, k.astype("f4"), c2w, pitch, actions, "a hall", "", meta)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    vae = GameplayVAE(block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4), norm_num_groups=2)
    vae.save_pretrained(tmp_path / "vae")
    for split, count in (("train", 3), ("val", 1)):
        with ShardWriter(tmp_path / "data" / split) as writer:
            for number in range(count):
                writer.write(make_episode(number, 3 if number < 2 else 4))
    return tmp_path / "vae", tmp_path / "data"


def test_latents_are_those_of_each_clip_alone_and_of_each_last_frame_alone(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    encode(*folders, tmp_path / "out", batch_size=2, backwards=True)
    store, vae = LatentStore(tmp_path / "out"), load_vae(folders[0])
    assert store.splits == ["train", backwards("train"), "val"]
    held, reverse = store.read("train"), store.read(backwards("train"))
    assert held.num_clips == {"e0": 3, "e1": 3, "e2": 4}
    frames = torch.from_numpy(make_episode(1, 3).frames).movedim(-1, 1)[None, 33:66]
    row = held.first_row["e1"] + 1
    with torch.no_grad():
        for split, order in ((held, frames), (reverse, frames.flip(1))):
            clip = vae.encode_clips(order)[0].float()
            torch.testing.assert_close(split.clips[row].float(), clip, atol=5e-3, rtol=5e-3)
            last = vae.encode_clips(order[:, -1:])[0].float()
            torch.testing.assert_close(split.lasts[row].float(), last, atol=5e-3, rtol=5e-3)
        assert (held.clips[row, :, -1:].float() - last).abs().max() > 0.02  # a clip's last latent is no single frame


def test_a_killed_run_goes_on_and_another_autoencoder_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "EPISODES_PER_FILE", 1)
    write, written = LatentStore.write, []

    def stop(self: LatentStore, split: str, keys: list[str], *tensors: torch.Tensor) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(keys)
        write(self, split, keys, *tensors)

    monkeypatch.setattr(LatentStore, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        encode(*folders, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.safetensors")}
    monkeypatch.setattr(LatentStore, "write", write)
    encode(*folders, tmp_path / "out")
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.safetensors")}
    assert len(before) == 2 and len(after) == 4 and before.items() <= after.items()
    assert LatentStore(tmp_path / "out").keys("train") == set(Manifest.open(folders[1] / "train").keys)
    GameplayVAE(block_out_channels=(4, 4, 4, 4), norm_num_groups=2).save_pretrained(folders[0])
    with pytest.raises(UserError, match="another VAE"):
        encode(*folders, tmp_path / "out")


def test_training_on_latents_and_on_frames_sees_the_same_batch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    encode(*folders, tmp_path / "out")
    vae = load_vae(folders[0])
    settings = {"batch_size": 2, "synthetic_ratio": 0.0, "val_batches": 0, "seed": 1}
    for history in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        batches = []
        for latents in (None, str(tmp_path / "out")):
            data = GameplayClipDataModule(str(folders[1]), history=history, latents=latents, **settings)
            data.setup("fit")
            batches.append(next(iter(data.train_dataloader())))
        assert batches[0]["keys"] == batches[1]["keys"]
        for a, b in zip(*(encode_batch(batch, vae) for batch in batches), strict=True):
            torch.testing.assert_close(a.float(), b.float(), atol=5e-3, rtol=5e-3)


def test_two_history_clips_are_encoded_apart() -> None:
    vae = GameplayVAE(block_out_channels=(4, 4, 4, 4), norm_num_groups=2)
    frames = torch.randint(0, 256, (1, 66, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        both = encode_history(vae, frames)
        assert both.shape[2] == 18
        torch.testing.assert_close(both[:, :, 9:], vae.encode_clips(frames[:, 33:]), atol=1e-5, rtol=1e-5)


def test_a_folder_without_shards_or_autoencoder_is_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no autoencoder here"):
        encode(tmp_path, folders[1], tmp_path / "out")
    with pytest.raises(UserError, match="no folder of gameplay shards"):
        encode(folders[0], tmp_path / "vae", tmp_path / "out")
