"""The command `gamecraft record`: what it writes is whole, repeatable and true, whatever happens meanwhile."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fulgurite.datamodules.gamecraft import recorder
from fulgurite.datamodules.gamecraft.actions import COUNTERFACTUAL_CHORDS, Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, relative_to_first, trajectory
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.recorder import SPLITS, TRAIN_MAPS, VAL_MAPS, record
from fulgurite.datamodules.gamecraft.units import plan_units
from fulgurite.datamodules.gamecraft.watched_processes import WatchedProcesses
from fulgurite.registry import UserError

pytest.importorskip("vizdoom")

SMALL: dict[str, Any] = {
    "num_frames": 66 * 8, "num_clips": 2, "val_frames": 66, "test_frames": 66, "synthetic_frames": 66 * 3,
    "num_starts": 1, "maps": ["map01", "map07"], "workers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("record") / "data"
    record(out, **SMALL)
    return out


def frames_of(folder: Path) -> dict[str, np.ndarray]:
    return {episode.key: np.array(episode.frames) for _, episode in Manifest.open(folder).read_all()}


def test_every_split_is_as_asked(recording):
    manifests = {split: Manifest.open(recording / split) for split in SPLITS}
    assert {s: len(m) for s, m in manifests.items()} == {
        "train": 8, "val": 1, "test": 1, "synthetic": 3, "counterfactual": 12,
    }  # fmt: skip
    assert set(manifests["train"].maps) == {"map01", "map07"} and set(manifests["val"].maps) <= set(VAL_MAPS)
    assert set(manifests["synthetic"].maps) <= {"map01", "map07"}
    assert set(manifests["test"].games) == set(manifests["counterfactual"].games) == {"freedoom1"}
    assert not set(TRAIN_MAPS) & set(VAL_MAPS)
    assert all(m.size == (64, 112) and m.unit_scale == pytest.approx(1 / 150) for m in manifests.values())
    results = json.loads((recording / "results.json").read_text())
    assert results["metrics"]["frames/train"] == 528 and results["metrics"]["rejected/dark"] >= 0


def test_stored_poses_follow_the_stored_actions(recording):
    """In free space a clip's poses are those that play will make of its action; most clips are in free space."""
    camera, close = ShearPitchCamera(64, 112), []
    for split in ("train", "synthetic"):
        for _, episode in Manifest.open(recording / split).read_all():
            for clip in range(episode.num_clips):
                frames = slice(33 * clip, 33 * clip + 33)
                chord = Chord.from_vector(episode.actions[clip])
                before = float(episode.pitch_deg[33 * clip - 1]) if clip else 0.0
                k, nominal, _ = trajectory(chord, 33, pitch_deg=before, camera=camera)
                real = relative_to_first(episode.c2w[frames])
                np.testing.assert_allclose(real[:, :3, :3], nominal[:, :3, :3], atol=np.radians(0.012))
                if clip:
                    np.testing.assert_allclose(episode.intrinsics[frames], k, atol=0.05)
                way = np.linalg.norm(nominal[-1, :3, 3])
                close.append(np.linalg.norm((real - nominal)[-1, [0, 2], 3]) <= 0.03 * way + 0.35 / 150)
    assert np.mean(close) >= 0.8


def test_twelve_answers_from_one_history(recording):
    episodes = [episode for _, episode in Manifest.open(recording / "counterfactual").read_all()]
    episodes.sort(key=lambda episode: episode.meta["action_index"])
    assert [e.meta["action_index"] for e in episodes] == list(range(12)) and len(
        {e.meta["start"] for e in episodes}
    ) == 1
    for episode, chord in zip(episodes, COUNTERFACTUAL_CHORDS, strict=True):
        np.testing.assert_array_equal(episode.frames[:33], episodes[0].frames[:33])
        np.testing.assert_array_equal(episode.c2w[:33], episodes[0].c2w[:33])
        np.testing.assert_array_equal(episode.actions[1], chord.vector())
        assert episode.key == f"{episode.meta['start']}-{episode.meta['action_index']:02d}"
    answers = np.stack([episode.frames[65].astype(float) for episode in episodes])
    apart = np.abs(answers[:, None] - answers).mean(axis=(2, 3, 4))
    assert (apart[~np.eye(12, dtype=bool)] > 1).all()


def test_a_second_call_adds_nothing_and_a_lost_shard_is_made_again_to_the_bit(recording, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(recording, copy)
    before = {split: frames_of(copy / split) for split in SPLITS}
    record(copy, **SMALL)
    assert {split: set(frames_of(copy / split)) for split in SPLITS} == {s: set(f) for s, f in before.items()}
    for split in SPLITS:
        lost = sorted((copy / split).glob("shard-*.tar"))[0]
        lost.unlink()
    record(copy, **{**SMALL, "workers": 2})
    for split in SPLITS:
        after = frames_of(copy / split)
        assert set(after) == set(before[split])
        for key, frames in after.items():
            np.testing.assert_array_equal(frames, before[split][key])


@pytest.mark.parametrize("fault", ["cut", "flipped", "no sidecar"])
def test_a_broken_shard_is_recorded_anew_and_the_recorder_says_so(recording, tmp_path, capsys, fault):
    """Whole again to the bit, in one line; what the broken shard held besides is not thrown away."""
    copy = tmp_path / "data"
    shutil.copytree(recording, copy)
    before = frames_of(copy / "train")
    shard = sorted((copy / "train").glob("shard-*.tar"))[-1]
    if fault == "cut":
        os.truncate(shard, shard.stat().st_size // 2)
    elif fault == "flipped":
        with open(shard, "r+b") as file:
            file.seek(20_000)
            file.write(b"flipped bytes")
    else:
        shard.with_suffix(".json").unlink()
        (copy / "train" / "index.npz").unlink()
    record(copy, **SMALL)
    after, lines = frames_of(copy / "train"), capsys.readouterr().out.splitlines()
    assert set(after) == set(before) and all(np.array_equal(after[key], before[key]) for key in before)
    (line,) = [line for line in lines if "was broken" in line]
    assert line.startswith("train: 1 shard was broken; ") and line.endswith(f"recorded anew for: {shard.name}.")
    assert line in json.loads((copy / "results.json").read_text())["statements"]
    manifest = Manifest.open(copy / "train")
    assert not manifest.broken and not list(copy.rglob("*.broken"))


def test_a_broken_shard_of_another_recording_is_set_aside_and_kept(recording, tmp_path, capsys):
    copy = tmp_path / "data"
    shutil.copytree(recording, copy)
    shard = sorted((copy / "train").glob("shard-*.tar"))[-1]
    os.truncate(shard, shard.stat().st_size - 1)
    size = shard.stat().st_size
    record(copy, **{**SMALL, "num_frames": 66, "seed": 1})
    assert f"train/{shard.name} was broken and is set aside" in capsys.readouterr().out
    assert shard.with_name(f"{shard.name}.broken").stat().st_size == size
    assert not Manifest.open(copy / "train").broken


def test_a_larger_count_goes_on_from_the_smaller(recording, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(recording, copy)
    before = set(frames_of(copy / "train"))
    record(copy, **{**SMALL, "num_frames": 66 * 12})
    after = set(frames_of(copy / "train"))
    assert before < after and len(after) >= 12


def test_a_killed_recording_leaves_whole_shards_and_no_process(tmp_path):
    out = tmp_path / "data"
    code = (
        "from pathlib import Path\nfrom fulgurite.datamodules.gamecraft.recorder import record\n"
        "if __name__ == '__main__':\n"
        f"    record(Path({str(out)!r}), num_frames=66000, num_clips=2, val_frames=0, test_frames=0,\n"
        "           synthetic_frames=0, num_starts=0, workers=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not list(out.glob("train/shard-*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers outlived the recorder")
    manifest = Manifest.open(out / "train")
    assert len(manifest) > 0 and not manifest.broken
    assert sum(len(episode.frames) for _, episode in manifest.read_all()) == 66 * len(manifest)


FULL_DISK = """
import errno
from fulgurite.datamodules.gamecraft.shard_recorder import ShardRecorder
from fulgurite.datamodules.gamecraft.shards import ShardWriter

class FullDisk(ShardRecorder):
    def record(self, batch):
        write, written = ShardWriter.write, []

        def fill(writer, episode):
            if len(written) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(writer, episode)
            written.append(episode.key)

        ShardWriter.write = fill
        try:
            yield from super().record(batch)
        finally:
            ShardWriter.write = write
"""


def test_a_full_disk_leaves_whole_shards(tmp_path, monkeypatch):
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(recorder, "ShardRecorder", importlib.import_module("full_disk").FullDisk)
    with pytest.raises(UserError, match="is full"):
        record(tmp_path, **SMALL)
    manifest = Manifest.open(tmp_path / "train")
    assert len(manifest) == 1 and not manifest.broken
    assert all(len(episode.frames) == 66 for _, episode in manifest.read_all())
    monkeypatch.undo()
    record(tmp_path, **SMALL)
    assert len(Manifest.open(tmp_path / "train")) == 8


HANGS_ONCE = """
import time
from fulgurite.datamodules.gamecraft.shard_recorder import ShardRecorder

class HangsOnce(ShardRecorder):
    def record(self, batch):
        for unit, frames in super().record(batch):
            yield unit, frames
            if frames and batch[0].split == "synthetic" and not (self.out / "hung").exists():
                (self.out / "hung").touch()
                time.sleep(3600)
"""


def test_a_process_that_hangs_costs_no_episode(recording, tmp_path, monkeypatch):
    """It hangs in the midst of a shard: killed, begun again, and every episode is there once, to the bit."""
    (tmp_path / "hangs_once.py").write_text(HANGS_ONCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(recorder, "ShardRecorder", importlib.import_module("hangs_once").HangsOnce)
    monkeypatch.setattr(recorder, "WatchedProcesses", functools.partial(WatchedProcesses, silence_s=10))
    out = tmp_path / "data"
    record(out, **SMALL)
    results = json.loads((out / "results.json").read_text())
    assert "Processes that hung, were killed and begun again: 1." in results["statements"]
    assert results["statements"][0].startswith("Recorded 1,650 frames")  # 25 episodes of 66, none counted twice
    for split in SPLITS:
        found, wanted = frames_of(out / split), frames_of(recording / split)
        assert set(found) == set(wanted) and all(np.array_equal(found[key], wanted[key]) for key in wanted)


def test_what_will_not_fit_is_refused_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6, total=0, used=0))
    with pytest.raises(UserError, match=r"needs 0.0. GB") as error:
        record(tmp_path, **SMALL)
    assert len(str(error.value).splitlines()) <= 6 and "to record" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.tar"))


def test_mistakes_are_named(recording, tmp_path):
    with pytest.raises(UserError, match="holds frames of 64x112"):
        record(recording, **{**SMALL, "size": "120x160"})
    with pytest.raises(UserError, match="not HEIGHTxWIDTH"):
        record(tmp_path, size="big")
    with pytest.raises(UserError, match="no map 'map99'"):
        record(tmp_path, maps=["map99"])


def test_a_key_names_the_same_frames_whatever_the_count():
    places = [("freedoom2", f"map{n:02d}") for n in range(1, 5)]
    few, many = (plan_units("train", "recorded", places, count, seed=3, num_clips=2) for count in (10, 1000))
    assert sum(u.num_episodes for u in few) == 10 and sum(u.num_episodes for u in many) == 1000
    keys = [unit.key(number) for unit in many for number in range(unit.num_episodes)]
    assert len(set(keys)) == 1000
    for small, large in zip(few, many, strict=False):
        assert (small.map, small.index) == (large.map, large.index)
        assert small.generator().random() == large.generator().random()
        assert large.keys()[: small.num_episodes] == small.keys()
