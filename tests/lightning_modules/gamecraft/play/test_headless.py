"""Films without a page: as many frames as were asked for, the same ones as the pipeline's own, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fulgurite.cli import main
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.play.film import film
from fulgurite.lightning_modules.gamecraft.play.starts import bundled_starts
from fulgurite.lightning_modules.gamecraft.play.world import PipelineWorld
from fulgurite.registry import UserError

av = pytest.importorskip("av")
ACTIONS = "w@0.8:40 a@0.3+left@0.5:33"


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert path.suffix == ".gif" or container.streams.video[0].average_rate == 25
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("suffix", "factor"), [(".mp4", 14), (".gif", 6)])
def test_a_film_has_the_start_frame_and_every_frame_asked_for(weights, tmp_path, suffix, factor, capsys):
    out = tmp_path / f"film{suffix}"
    assert main(["gamecraft", "play", "--weights", str(weights), "--actions", ACTIONS, "--out", str(out)]) == 0
    found = frames_of(out)
    assert found.shape == (1 + 40 + 33, 32 * factor, 48 * factor, 3), "enlarged by a whole number, the last chunk cut"
    assert "73 frames" in capsys.readouterr().err
    pipeline = GameCraftPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    start = bundled_starts(weights)[0].image
    expected = pipeline(start, ACTIONS, generator=torch.Generator().manual_seed(0))[0].numpy()
    small = found[1:, factor // 2 :: factor, factor // 2 :: factor].astype(float)
    assert np.abs(small - expected).mean() < 14, "the same pictures, as far as the film's codec keeps them"
    unlike = np.abs(small - expected[::-1]).mean()
    assert np.abs(small - expected).mean() < 0.8 * unlike


def test_any_picture_starts_a_film(weights, tmp_path):
    Image.new("RGB", (300, 100), (200, 30, 30)).save(tmp_path / "red.webp")
    line = ["gamecraft", "play", "--weights", str(weights), "--actions=-:1", "--out", str(tmp_path / "o.mp4")]
    assert main([*line, "--image", str(tmp_path / "red.webp")]) == 0
    red, green, blue = frames_of(tmp_path / "o.mp4")[0].mean((0, 1))
    assert red > 150 and green < 70 and blue < 70


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--actions", "w"], "both --actions and --out"),
        (["--out", "x.mp4"], "both --actions and --out"),
        (["--actions", "w:0", "--out", "x.mp4"], "number of frames"),
        (["--actions", "fly", "--out", "x.mp4"], "'fly' is no key"),
        (["--actions", "w", "--out", "x.avi"], "a film ends in .mp4 or .gif"),
        (["--actions", "w", "--out", "x.mp4", "--image", "nowhere.png"], "no such file"),
        (["--actions", "w", "--out", "x.mp4", "--device", "abacus"], "--device abacus"),
        (["--actions", "w", "--out", "x.mp4", "--steps", "0"], "--steps 0"),
        (["--port", "70000"], "--port 70000"),
        (["--port", "-1"], "--port -1"),
    ],
)
def test_mistakes_are_answered_in_a_sentence_and_leave_no_film(weights, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    assert main(["gamecraft", "play", "--weights", str(weights), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert len(error.strip().splitlines()) <= 6
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_breaks_off_leaves_no_file(tmp_path):
    frame = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(RuntimeError), film(tmp_path / "film.mp4", 25.0) as add:
        add(frame)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="can't be written"), film(tmp_path / "a" / "b.mp4", 25.0) as add:
        (tmp_path / "a").rmdir()


def test_captions_without_padding_make_the_same_pictures(weights):
    """The world cuts the caption to its tokens and drops the mask, for speed; the pipeline keeps both."""
    pipeline = GameCraftPipeline.from_pretrained(weights, dtype=torch.float32)
    start: Any = Image.new("RGB", (48, 32), (120, 90, 60))
    world = PipelineWorld(pipeline, seed=3)
    from fulgurite.datamodules.gamecraft.actions import Chord

    ours, _ = world.next_chunk(world.start(start), Chord.of(w=1.0))
    theirs, _ = pipeline.next_chunk(pipeline.start(start, generator=torch.Generator().manual_seed(3)), Chord.of(w=1.0))
    assert (ours.int() - theirs.int()).abs().max() <= 1
