"""Shards are whole or absent, any number of writers share a folder, and webdataset reads what they write."""

import errno
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import webdataset

from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.shards import Episode, ShardWriter

Make = Callable[..., Episode]


def equal(a: Episode, b: Episode) -> bool:
    arrays = ("frames", "intrinsics", "c2w", "pitch_deg", "actions")
    words = ("key", "caption", "captions_long", "meta")
    return all(numpy.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) and all(
        getattr(a, n) == getattr(b, n) for n in words
    )


def test_what_is_written_is_read_back_by_us_and_by_webdataset(tmp_path: Path, episode: Make) -> None:
    written = [episode(f"e{i}", 1 + i % 3, i) for i in range(5)]
    with ShardWriter(tmp_path, shard_size_mb=0.05) as writer:
        for one in written:
            writer.write(one)
    manifest = Manifest.open(tmp_path)
    assert len(manifest.shards) > 1
    assert all(equal(manifest.read(i), written[i]) for i in range(5))
    shards = [str(tmp_path / s) for s in manifest.shards]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == [e.key for e in written]
    assert numpy.array_equal(samples[3]["frames.npy"], written[3].frames)
    assert numpy.array_equal(samples[3]["camera.npz"]["c2w"], written[3].c2w)
    assert samples[3]["json"]["caption"] == "caption of e3"


def write_some(folder: Path, name: str, episode: Make) -> None:
    with ShardWriter(folder, shard_size_mb=0.03, name=name) as writer:
        for i in range(4):
            writer.write(episode(f"{name}-{i}", 1, i))
        writer.add_rejections({"dark": 2})


def test_several_processes_write_one_folder(tmp_path: Path, episode: Make) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_some, args=(tmp_path, name, episode)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    manifest = Manifest.open(tmp_path)
    assert manifest.keys == [f"{name}-{i}" for name in "abc" for i in range(4)]
    assert manifest.counts == {"episodes": 12, "clips": 12, "frames": 396}
    assert manifest.rejected == {"dark": 6}


def test_a_writer_that_is_cut_off_leaves_whole_shards_and_the_next_goes_on(tmp_path: Path, episode: Make) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, shard_size_mb=0.03) as writer:
        for i in range(5):
            writer.write(episode(f"e{i}", 1, i))
        raise KeyboardInterrupt
    assert writer.existing_keys() == {f"e{i}" for i in range(5)}
    killed = ShardWriter(tmp_path)
    killed.write(episode("lost"))  # and never closed, as if the process had been killed
    with ShardWriter(tmp_path) as writer:
        assert writer.existing_keys() == {f"e{i}" for i in range(5)}
        with pytest.raises(ValueError, match="written before"):
            writer.write(episode("e3"))
        writer.write(episode("e5"))
    assert Manifest.open(tmp_path).keys == [f"e{i}" for i in range(6)]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_whole_shards_only(tmp_path: Path, episode: Make) -> None:
    class Full:
        """A file on a disk that takes no more than `left` bytes, and takes a last write in part, as disks do."""

        def __init__(self, file: object, left: int) -> None:
            self.file, self.left = file, left

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if self.left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(data[: self.left])
            self.left -= taken
            return taken

        def truncate(self, size: int) -> None:
            self.left += self.file.seek(0, 2) - size
            self.file.truncate(size)

    with pytest.raises(OSError, match="No space"), ShardWriter(tmp_path) as writer:
        writer.write(episode("e0", 1))
        writer._file = Full(writer._file, 20_000)
        writer.write(episode("e1", 1))
        writer.write(episode("e2", 1))
    manifest = Manifest.open(tmp_path)
    assert manifest.keys == ["e0", "e1"][: len(manifest)] and len(manifest) >= 1 and not manifest.broken
    assert sorted(p.suffix for p in tmp_path.glob("*shard*")) == [".json", ".tar"]
    assert len(list(webdataset.WebDataset(str(tmp_path / manifest.shards[0]), shardshuffle=False))) == len(manifest)


def test_a_sidecar_without_its_shard_counts_for_nothing(tmp_path: Path, episode: Make) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(episode("e0"))
    (tmp_path / "shard-0-000000.tar").unlink()  # as after a kill between the two renames
    assert len(Manifest.open(tmp_path)) == 0
    with ShardWriter(tmp_path) as writer:
        assert not writer.existing_keys()
        writer.write(episode("e0"))
    assert Manifest.open(tmp_path).keys == ["e0"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: setattr(e, "key", "a.b"),
        lambda e: setattr(e, "frames", e.frames[:40]),
        lambda e: setattr(e, "frames", e.frames.astype("f4")),
        lambda e: setattr(e, "c2w", e.c2w[1:]),
        lambda e: e.c2w.__setitem__((3, 0, 0), numpy.nan),
    ],
)
def test_a_malformed_episode_is_refused(tmp_path: Path, episode: Make, spoil: object) -> None:
    bad = episode("e0")
    spoil(bad)
    with ShardWriter(tmp_path) as writer, pytest.raises(ValueError, match="episode"):
        writer.write(bad)
    assert json.loads(json.dumps(Manifest.open(tmp_path).counts)) == {"episodes": 0, "clips": 0, "frames": 0}
