"""Broken shards are skipped, named and counted; the index is a cache of the sidecars; a million rows are columns."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy
import pytest

from fulgurite.datamodules.gamecraft import index as index_file
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.shards import Episode, ShardWriter
from fulgurite.registry import UserError

Make = Callable[..., Episode]


@pytest.fixture
def folder(tmp_path: Path, episode: Make) -> Path:
    """Six episodes of two clips, two a shard."""
    with ShardWriter(tmp_path, shard_size_mb=0.05) as writer:
        for i in range(6):
            writer.write(episode(f"e{i}", 2, i, game="ab"[i % 2], map=f"MAP0{i}", turn_deg=i))
    return tmp_path


def test_the_summary_says_what_there_is(folder: Path) -> None:
    Manifest.open(folder).add_rejections({"dark": 3})
    Manifest.open(folder).add_rejections({"dark": 1, "stuck": 2})
    said = json.loads((folder / "manifest.json").read_text())
    assert said["counts"] == {"episodes": 6, "clips": 12, "frames": 396}
    assert said["size"] == [8, 16] and said["unit_scale"] == pytest.approx(1 / 150)
    assert said["games"] == {"a": 3, "b": 3} and len(said["maps"]) == 6 and said["kinds"] == {"recorded": 6}
    assert said["rejected"] == {"dark": 4, "stuck": 2}


def test_a_shard_cut_short_is_skipped_named_and_counted(folder: Path) -> None:
    with open(folder / "shard-0-000001.tar", "r+b") as file:
        file.truncate(30_000)
    with pytest.warns(UserWarning, match="shard-0-000001.tar has 30000 bytes instead of .*: skipped, with 2 episodes"):
        manifest = Manifest.open(folder)
    assert [e.key for _, e in manifest.read_all()] == ["e0", "e1", "e4", "e5"]
    assert list(manifest.broken) == ["shard-0-000001.tar"]
    assert manifest.counts["episodes"] == 4 and manifest.summary()["broken"] == manifest.broken
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.warns(UserWarning, match="skipped"):
        Manifest.open(folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}  # or a run would take it for new data


@pytest.mark.parametrize("place", [5_000, 27_000, -12_000])  # in frames, in a camera, in the next episode
def test_flipped_bytes_are_met_when_read(folder: Path, place: int) -> None:
    path = folder / "shard-0-000002.tar"
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    manifest = Manifest.open(folder)
    with pytest.warns(UserWarning, match="shard-0-000002.tar has changed bytes"):
        keys = [e.key for _, e in manifest.read_all()]
    assert keys[:4] == ["e0", "e1", "e2", "e3"] and len(keys) <= 5
    assert manifest.counts["episodes"] == 4


def test_a_shard_without_sidecar_is_named(folder: Path) -> None:
    (folder / "index.npz").unlink()
    (folder / "shard-0-000000.json").write_text("{")
    with pytest.warns(UserWarning, match="no readable sidecar"):
        assert Manifest.open(folder).keys == ["e2", "e3", "e4", "e5"]


def test_the_order_does_not_depend_on_which_process_wrote_what(folder: Path, tmp_path: Path, episode: Make) -> None:
    """Evaluation draws by row: two recordings of the same episodes must give it the same ones."""
    other = tmp_path / "other"
    for name, numbers in (("w01", (5, 0, 3)), ("w00", (4, 1, 2))):
        with ShardWriter(other, name=name) as writer:
            for i in numbers:
                writer.write(episode(f"e{i}", 2 + i % 2, i, turn_deg=i))
                Manifest.open(other)
    (other / "index.npz").unlink()
    first, again = Manifest.open(other), Manifest.open(other)  # from the sidecars, and from the index
    for manifest in (first, again):
        assert manifest.keys == Manifest.open(folder).keys == [f"e{i}" for i in range(6)]
        for i, found in manifest.read_all():
            assert numpy.array_equal(found.frames, episode(f"e{i}", 2 + i % 2, i).frames)
            place = slice(manifest.episodes["first_clip"][i], manifest.episodes["first_clip"][i] + found.num_clips)
            numpy.testing.assert_allclose(manifest.episodes["clip_move"][place], found.clip_moves(), atol=1e-4)


@pytest.mark.parametrize("index", ["gone", "garbage", "old", "cut"])
def test_any_state_of_the_index_gives_the_same_manifest(folder: Path, episode: Make, index: str) -> None:
    path = folder / "index.npz"
    before = path.read_bytes()
    with ShardWriter(folder, name="A") as writer:  # sorts between the others' names and an index of three shards
        writer.write(episode("other", 3, 9, game="c"))
    wanted = Manifest.open(folder)
    {
        "gone": path.unlink,
        "garbage": lambda: path.write_bytes(b"no zip at all"),
        "old": lambda: path.write_bytes(before),
        "cut": lambda: path.write_bytes(before[:700]),
    }[index]()
    found = Manifest.open(folder)
    assert found.keys == wanted.keys and found.shards == wanted.shards and found.games == wanted.games
    for name, column in wanted.episodes.items():
        if name != "game":  # its codes may differ, its words above do not
            assert numpy.array_equal(column, found.episodes[name]), name
    assert found.read(6).key == "other"
    (folder / "shard-0-000001.tar").unlink()
    left = Manifest.open(folder)
    assert left.keys == ["e0", "e1", "e4", "e5", "other"]
    assert [e.key for _, e in left.read_all()] == left.keys


def test_moves_forwards_and_backwards(folder: Path) -> None:
    manifest = Manifest.open(folder)
    c2w = manifest.read(5).c2w[33:]
    assert numpy.allclose(manifest.episodes["clip_move"][0], [[0, 0, 0.64], [0, 0, -0.64]], atol=1e-4)
    there_and_back = [(numpy.linalg.inv(c2w[a]) @ c2w[b])[:3, 3] for a, b in ((0, 32), (32, 0))]
    assert numpy.allclose(manifest.episodes["clip_move"][11], there_and_back, atol=1e-4)


def test_a_covered_folder_opens_without_its_sidecars_and_with_whole_columns(folder: Path) -> None:
    """What makes a million rows open in seconds: one file of columns, no work for each row."""
    with patch.object(index_file, "json") as parser:
        opened = Manifest.open(folder)
    assert not parser.loads.called
    assert all(isinstance(c, numpy.ndarray) and c.dtype != object for c in opened.episodes.values())


def test_other_layouts_and_missing_folders_are_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Manifest.open(folder / "nowhere")
    (folder / "index.npz").unlink()
    sidecar = folder / "shard-0-000000.json"
    sidecar.write_text(sidecar.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(UserError, match="layout version 2"):
        Manifest.open(folder)
