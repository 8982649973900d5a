"""Batches: right history, exact shares, once a pass over ranks, resumable, played backwards soundly."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy
import pytest
import torch

from fulgurite.datamodules import draws
from fulgurite.datamodules.gamecraft.balance import invert_actions, invert_episode
from fulgurite.datamodules.gamecraft.camera import relative_to_first
from fulgurite.datamodules.gamecraft.latents import LatentStore, backwards
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.module import GameplayClipDataModule, GameplayFramesDataModule
from fulgurite.datamodules.gamecraft.shards import Episode, ShardWriter
from fulgurite.registry import UserError

Make = Callable[..., Episode]


@pytest.fixture
def data(tmp_path: Path, episode: Make) -> Path:
    """Recorded: 6 episodes of 4 clips in two games; synthetic, val and test: 2 each. Each turns in its own way."""
    for split, count in (("train", 6), ("synthetic", 2), ("val", 2), ("test", 2)):
        with ShardWriter(tmp_path / split, shard_size_mb=0.1) as writer:
            for i in range(count):
                game = "doom" if i % 2 else "other"
                writer.write(episode(f"{split}{i}", 4, i + 1, turn_deg=i - 2, game=game))
    return tmp_path


def batches(module: GameplayClipDataModule, count: int) -> list[dict]:
    module.setup("fit")
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) if torch.is_tensor(v) else v == b[k] for k, v in a.items())


@functools.cache
def read(data: Path, key: str) -> Episode:
    manifest = Manifest.open(data / key.rstrip("0123456789"))
    return manifest.read(manifest.keys.index(key))


def locate(data: Path, batch: dict, i: int) -> tuple[Episode, int]:
    """The episode of an item, and which clip its frames are (negative: that clip, backwards)."""
    found = read(data, batch["keys"][i])
    frames = batch["frames"][i].permute(0, 2, 3, 1).numpy()
    for clip in range(found.num_clips):
        mine = found.frames[33 * clip : 33 * clip + 33]
        if numpy.array_equal(mine, frames):
            return found, clip
        if numpy.array_equal(mine[::-1], frames):
            return found, -clip - 1
    raise AssertionError("frames of no clip")


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("inversion", [0.0, 0.5])
def test_every_item_is_a_clip_with_what_came_before_it(data: Path, in_memory: bool, inversion: float) -> None:
    module = GameplayClipDataModule(str(data), 4, 20, inversion=inversion, in_memory=in_memory)
    heads, ways = Counter(), Counter()
    for batch in batches(module, 20):
        length = {"clip": 33, "clips": 66, "frame": 1}[batch["head"]]
        assert batch["frames"].shape == (4, 33, 3, 8, 16) and batch["history"].shape == (4, length, 3, 8, 16)
        assert batch["frames"].dtype == batch["history"].dtype == torch.uint8
        assert batch["intrinsics"].dtype == batch["c2w"].dtype == batch["actions"].dtype == torch.float32
        heads[batch["head"]] += 1
        for i in range(4):
            episode, clip = locate(data, batch, i)
            ways[clip >= 0] += 1
            if clip < 0:
                episode, clip = invert_episode(episode), episode.num_clips + clip
            start = 33 * clip
            now, before = slice(start, start + 33), slice(start - length, start)
            assert numpy.array_equal(batch["history"][i].permute(0, 2, 3, 1), episode.frames[before])
            assert numpy.allclose(batch["intrinsics"][i], episode.intrinsics[now])
            assert numpy.allclose(batch["c2w"][i], relative_to_first(episode.c2w[now]), atol=1e-6)
            assert numpy.allclose(batch["actions"][i], episode.actions[clip])
            assert batch["captions"][i] == episode.caption
    assert heads == {"clip": 14, "clips": 1, "frame": 5}
    assert ways[False] == 80 * inversion or abs(ways[False] - 40) <= 2


def test_backwards_poses_undo_the_motion(data: Path) -> None:
    module = GameplayClipDataModule(str(data), 4, 20, inversion=1.0, history=(1.0, 0.0, 0.0))
    batch = batches(module, 1)[0]
    for i in range(4):
        episode, clip = locate(data, batch, i)
        assert clip < 0
        forwards = relative_to_first(episode.c2w[33 * (-clip - 1) :][:33])
        assert numpy.allclose(batch["c2w"][i, 0], numpy.eye(4), atol=1e-6)
        assert numpy.allclose(batch["c2w"][i, -1].numpy() @ forwards[-1], numpy.eye(4), atol=1e-5)
        assert numpy.allclose(batch["actions"][i], invert_actions(episode.actions[-clip - 1]))


def test_clips_with_moving_things_are_never_played_backwards(tmp_path: Path, episode: Make) -> None:
    with ShardWriter(tmp_path / "train") as writer:
        writer.write(episode("still", 3))
        writer.write(episode("monsters", 3, 1, monsters=True))
    module = GameplayClipDataModule(
        str(tmp_path), 4, inversion=1.0, synthetic_ratio=0, history=(1, 0, 0), val_batches=0
    )
    assert {k for b in batches(module, 10) for k in b["keys"]} == {"still"}
    with pytest.raises(ValueError, match="not static"):
        invert_episode(episode("monsters", monsters=True))


def test_synthetic_to_recorded_is_one_to_five(data: Path) -> None:
    keys = [k for b in batches(GameplayClipDataModule(str(data), 6, 100), 100) for k in b["keys"]]
    assert sum(k.startswith("synthetic") for k in keys) == len(keys) // 6
    only = GameplayClipDataModule(str(data), 6, 10, synthetic_ratio=1.0)
    assert all(k.startswith("synthetic") for b in batches(only, 10) for k in b["keys"])


@pytest.mark.parametrize("in_memory", [True, False])
def test_short_and_long_captions_are_mixed(data: Path, in_memory: bool) -> None:
    module = GameplayClipDataModule(str(data), 10, 20, long_captions=0.5, in_memory=in_memory)
    captions = [c for b in batches(module, 20) for c in b["captions"]]
    assert 70 < sum(c == "a hall with a lamp" for c in captions) < 130
    assert sum(c.startswith("caption of") for c in captions) > 70


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_clip_comes_once_a_pass_over_all_ranks(data: Path, world_size: int) -> None:
    """6 episodes of 4 clips have 18 targets with a clip before them; a batch of 3 on each rank, any number of ranks."""
    seen = []
    for rank in range(world_size):
        with (
            patch.object(draws.distributed, "is_initialized", lambda: True),
            patch.object(draws.distributed, "get_rank", lambda r=rank: r),
            patch.object(draws.distributed, "get_world_size", lambda: world_size),
        ):
            module = GameplayClipDataModule(
                str(data), 3, 12 // world_size, synthetic_ratio=0, history=(0.75, 0, 0.25), val_batches=0
            )
            for batch in batches(module, 12 // world_size):
                seen += [(batch["keys"][i], locate(data, batch, i)[1]) for i in range(3)]
    counts = Counter(seen)
    assert len(counts) == 18 and set(counts.values()) == {2}  # two passes


def test_a_run_that_resumes_sees_the_same_batches(data: Path) -> None:
    def make() -> GameplayClipDataModule:
        return GameplayClipDataModule(str(data), 4, 7, inversion=0.3, balanced=True, seed=5)

    wanted = batches(make(), 7)
    module = make()
    module.setup("fit")
    loader = module.train_dataloader()
    ahead = iter(loader)
    for _ in range(4):
        next(ahead)
    resumed = make()
    resumed.setup("fit")
    again = resumed.train_dataloader()
    again.load_state_dict(loader.state_dict())
    assert all(same(a, b) for a, b in zip(again, wanted[4:], strict=False))
    assert not all(
        same(a, b) for a, b in zip(batches(GameplayClipDataModule(str(data), 4, 7), 4), wanted, strict=False)
    )


def test_batches_do_not_depend_on_memory_or_workers(data: Path) -> None:
    wanted = batches(GameplayClipDataModule(str(data), 4, 5), 5)
    for other in ({"in_memory": False}, {"num_workers": 1}):
        assert all(
            same(a, b)
            for a, b in zip(wanted, batches(GameplayClipDataModule(str(data), 4, 5, **other), 5), strict=True)
        )


def test_balanced_batches_have_all_directions_alike(tmp_path: Path, episode: Make) -> None:
    with ShardWriter(tmp_path / "train") as writer:
        for i in range(9):
            writer.write(episode(f"forward{i}", 3, i))
        writer.write(episode("left", 3, step=(-0.02, 0, 0)))
    module = GameplayClipDataModule(
        str(tmp_path), 10, synthetic_ratio=0, balanced=True, history=(1, 0, 0), val_batches=0
    )
    assert [sum(k == "left" for k in b["keys"]) for b in batches(module, 3)] == [5, 5, 5]


def test_held_out_games_are_only_evaluated(data: Path) -> None:
    module = GameplayClipDataModule(str(data), 4, 10, holdout_games=("doom",), val_batches=9)
    assert {int(k[-1]) % 2 for b in batches(module, 10) for k in b["keys"]} == {0}
    val = [k for b in module.val_dataloader() for k in b["keys"]]
    assert {int(k[-1]) % 2 for k in val} == {1} and {k[:-1] for k in val} == {"train", "synthetic", "val"}
    with pytest.raises(UserError, match="held-out games quake"):
        GameplayClipDataModule(str(data), 4, holdout_games=("quake",)).setup("test")


def test_validation_and_test_are_fixed_and_of_their_folders(data: Path) -> None:
    module = GameplayClipDataModule(str(data), 2, val_batches=3)
    module.setup("validate")
    module.setup("test")
    for loader, split in ((module.val_dataloader(), "val"), (module.test_dataloader(), "test")):
        first, second = list(loader), list(loader)
        assert len(first) == 3 and all(same(a, b) for a, b in zip(first, second, strict=True))
        assert all(k.startswith(split) for b in first for k in b["keys"])


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_broken_shard_is_skipped_named_and_counted(data: Path, in_memory: bool) -> None:
    path = next(iter(sorted((data / "train").glob("*.tar"))))
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    module = GameplayClipDataModule(str(data), 4, 40, in_memory=in_memory)
    with pytest.warns(UserWarning, match=f"{path.name} has changed bytes in its frames: skipped"):
        keys = [k for b in batches(module, 40) for k in b["keys"]]
    assert len(keys) == 160
    assert list(module.broken_shards) == [str(path)]
    if in_memory:
        lost = {e.key for e in map(Manifest.open(data / "train").read, [1])}
        assert not lost & set(keys)


def test_what_a_loaders_process_finds_broken_is_known_here(data: Path) -> None:
    path = next(iter(sorted((data / "train").glob("*.tar"))))
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    module = GameplayClipDataModule(str(data), 4, 20, in_memory=False, num_workers=1, val_batches=0)
    found = batches(module, 20)
    assert not module.broken_shards
    with pytest.warns(UserWarning, match=f"{path.name} has changed bytes in its frames: skipped, with"):
        found = [module.on_before_batch_transfer(batch, 0) for batch in found]
    assert list(module.broken_shards) == [str(path)] and not any("broken_shards" in batch for batch in found)


def test_latents_stand_in_for_frames(data: Path) -> None:
    """Latents that say which clip they are, so that the history's rows can be read off them."""
    store = LatentStore.create(data / "latents", vae_sha256="0", scaling_factor=0.5)
    for split in ("train", "synthetic", "val"):
        manifest = Manifest.open(data / split)
        for name, sign in ((split, 1), (backwards(split), -1)):
            for index in (3, 1, 0, 2, 4, 5):  # in any order
                if index < len(manifest):
                    number = torch.arange(4) + 10 * index + 1
                    clips = (sign * number)[None, :, None, None, None, None] * torch.ones(1, 4, 16, 9, 1, 2)
                    store.write(name, [manifest.keys[index]], clips, clips[:, :, :, :1] * 2)
    pixels = GameplayClipDataModule(str(data), 4, 20, inversion=0.5)
    latent = GameplayClipDataModule(str(data), 4, 20, inversion=0.5, latents=str(data / "latents"))
    for a, b in zip(batches(pixels, 20), batches(latent, 20), strict=True):
        assert a["head"] == b["head"] and a["keys"] == b["keys"] and torch.equal(a["c2w"], b["c2w"])
        length = {"clip": 9, "clips": 18, "frame": 1}[a["head"]]
        assert b["latents"].shape == (4, 16, 9, 1, 2) and b["history_latents"].shape == (4, 16, length, 1, 2)
        assert b["latents"].dtype == torch.float16 and "frames" not in b
        b = latent.on_after_batch_transfer(b, 0)
        assert b["latents"].dtype == b["history_latents"].dtype == torch.float32
        for i in range(4):
            _, clip = locate(data, a, i)
            number = 10 * int(a["keys"][i][-1]) + 1
            here = number + clip if clip >= 0 else -(number - clip - 1)
            before = [here - 2, here - 1] if a["head"] == "clips" else [here - 1]
            assert (b["latents"][i] == here).all()
            wanted = torch.tensor(before, dtype=torch.float32).repeat_interleave(9) if length > 1 else 2.0 * (here - 1)
            assert (b["history_latents"][i, 0, :, 0, 0] == wanted).all()
    assert latent.latent_meta["scaling_factor"] == 0.5
    with pytest.raises(UserError, match="another VAE"):
        LatentStore.create(data / "latents", vae_sha256="1", scaling_factor=0.5)
    with pytest.raises(UserError, match="no latents of 'test'"):
        latent.setup("test")


def test_what_encoding_skipped_as_broken_needs_no_latents(data: Path) -> None:
    manifest = Manifest.open(data / "train")
    path = data / "train" / manifest.shards[0]
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    store = LatentStore.create(data / "latents", vae_sha256="0", scaling_factor=0.5)
    with pytest.warns(UserWarning, match="skipped"):
        keys = [e.key for _, e in manifest.read_all()]
    store.write("train", keys, torch.zeros(len(keys), 4, 16, 9, 1, 2), torch.zeros(len(keys), 4, 16, 1, 1, 2))
    module = GameplayClipDataModule(
        str(data), 4, 20, synthetic_ratio=0, latents=str(data / "latents"), inversion=0, val_batches=0
    )
    with pytest.warns(UserWarning, match="changed bytes in its frames: skipped"):
        given = {k for b in batches(module, 20) for k in b["keys"]}
    assert given == set(keys) and list(module.broken_shards) == [str(path)]


def test_latents_of_older_data_are_refused(data: Path, episode: Make) -> None:
    store = LatentStore.create(data / "latents", vae_sha256="0", scaling_factor=0.5)
    store.write("train", ["train0"], torch.zeros(1, 4, 16, 9, 1, 2), torch.zeros(1, 4, 16, 1, 1, 2))
    module = GameplayClipDataModule(str(data), synthetic_ratio=0, latents=str(data / "latents"))
    with pytest.raises(UserError, match="5 episodes of 'train' lack latents"):
        module.setup("fit")


def test_what_cannot_be_drawn_is_said(tmp_path: Path, episode: Make) -> None:
    with ShardWriter(tmp_path / "train") as writer:
        writer.write(episode("short", 2))
    with pytest.raises(UserError, match=r"no recorded clips with 2 clips before them"):
        GameplayClipDataModule(str(tmp_path), synthetic_ratio=0).setup("fit")
    with pytest.raises(UserError, match="no such folder of gameplay shards"):
        GameplayClipDataModule(str(tmp_path)).setup("fit")
    for wrong in (
        {"history": (0.5, 0.1, 0.1)},
        {"inversion": 2.0},
        {"long_captions": -1.0},
        {"latents": "x", "in_memory": False},
    ):
        with pytest.raises(UserError, match="data"):
            GameplayClipDataModule(str(tmp_path), **wrong)


def test_clips_and_single_frames_by_themselves(data: Path) -> None:
    module = GameplayFramesDataModule(str(data), 4, 20, val_batches=2)
    module.setup("fit")
    given = list(module.train_dataloader())
    lengths = Counter(b["frames"].shape[1] for b in given)
    assert lengths == {33: 15, 1: 5}
    assert all(b["c2w"].shape == (4, b["frames"].shape[1], 4, 4) for b in given)
    firsts = [locate(data, b, i)[1] for b in given if b["frames"].shape[1] == 33 for i in range(4)]
    assert min(firsts) == 0 and max(firsts) == 3  # the first clip of an episode too, which has no history
    assert sum(k.startswith("synthetic") for b in given for k in b["keys"]) == 80 // 6
    assert all(k.startswith("val") for b in module.val_dataloader() for k in b["keys"])
