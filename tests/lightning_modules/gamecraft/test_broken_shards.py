"""A broken shard met by the stages of a run: skipped, named and counted in each one's report and record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy
import pytest

from fulgurite.cli import main
from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.datamodules.gamecraft.episode import Episode
from fulgurite.datamodules.gamecraft.shards import ShardWriter
from fulgurite.launch.records.notes import add_note, noting, read_notes
from fulgurite.lightning_modules.gamecraft.evaluation.held_out import draw_chunks

SIZE = 16
RUN = """\
title: two stages on broken data
stages:
  - {name: vae, experiment: gamecraft/vae}
  - {name: encode, command: gamecraft encode}
vae:
  model: {vae: {block_out_channels: [4, 4, 4, 4], decoder_block_out_channels: [4, 4, 4, 4], norm_num_groups: 2}}
  data: {data: DATA, synthetic_ratio: 0.0, batch_size: 2, num_batches: 2, val_batches: 1}
encode: {vae: "${run_dir}/vae/vae", data: DATA, out: "${run_dir}/encode"}
"""


def make_episode(number: int) -> Episode:
    frames = numpy.random.default_rng(number).integers(0, 256, (66, SIZE, SIZE, 3), dtype=numpy.uint8)
    k, c2w, _ = trajectory(Chord.of(w=0.5), len(frames), camera=ShearPitchCamera(SIZE, SIZE))
    actions = numpy.tile(Chord.of(w=0.5).vector(), (2, 1))
    meta = {"game": "toy", "map": "one", "kind": "recorded"}
    return Episode(f"e{number}", frames, k.astype("f4"), c2w, numpy.zeros(66, "f4"), actions, "a hall", "", meta)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Train: two shards of two episodes, bytes of the second one changed. Val: two of one, the second one cut short."""
    folder = tmp_path / "data"
    for split, per_shard in (("train", 2), ("val", 1)):
        for shard in range(2):
            with ShardWriter(folder / split) as writer:
                for number in range(per_shard):
                    writer.write(make_episode(10 * shard + number))
    changed = folder / "train" / "shard-0-000001.tar"
    content = bytearray(changed.read_bytes())
    content[20_000] ^= 1
    changed.write_bytes(content)
    os.truncate(folder / "val" / "shard-0-000001.tar", 9_000)
    return folder


def test_every_stage_names_and_counts_what_it_skipped(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(RUN.replace("DATA", str(data)))
    assert main(["run", "two.yaml"]) == 0
    (run,) = (tmp_path / "runs" / "two").iterdir()
    report = (run / "report.md").read_text().partition("## encode")
    stages = {stage["name"]: stage for stage in json.loads((run / "record.json").read_text())["stages"]}
    for name, text in (("vae", report[0]), ("encode", report[2])):
        for told in (text, "\n".join(stages[name]["statements"])):
            assert f"{data}/train/shard-0-000001.tar has changed bytes in its frames: skipped, with 2 episodes" in told
            assert "val/shard-0-000001.tar has 9000 bytes instead of " in told
            assert told.count("skipped, with 1 episodes") == 1
    assert stages["encode"]["metrics"]["clips_encoded"] == 2 * 2 + 2


def test_evaluation_is_noted_too_and_only_where_something_was_skipped(data: Path, tmp_path: Path) -> None:
    """draw_chunks reads the shards by itself; a second stage of the same process tells it again."""
    for stage in ("first", "second"):
        with pytest.warns(UserWarning, match="skipped"), noting(tmp_path / stage):
            draw_chunks(data / "train", 8, seed=0)
        (note,) = read_notes(tmp_path / stage)
        assert note.endswith("has changed bytes in its frames: skipped, with 2 episodes")
    (data / "train" / "shard-0-000001.tar").unlink()
    with noting(tmp_path / "whole"):
        draw_chunks(data / "train", 8, seed=0)
    assert read_notes(tmp_path / "whole") == []


def test_notes_of_an_attempt_that_failed_are_forgotten(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(RUN.replace("DATA", str(data)))
    assert main(["run", "two.yaml"]) == 0
    (run,) = (tmp_path / "runs" / "two").iterdir()
    said = json.loads((run / "run.json").read_text())
    said["stages"]["encode"]["state"] = "failed"
    (run / "run.json").write_text(json.dumps(said))
    before = read_notes(run / "encode")
    add_note(run / "encode", "broken shard that was mended meanwhile")
    assert main(["run", "two.yaml"]) == 0
    assert len(before) == 2 and read_notes(run / "encode") == read_notes(run / "vae")[::-1] == before
