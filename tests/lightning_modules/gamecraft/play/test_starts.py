"""Start frames: chosen from recorded episodes, captioned with what a release knows, and pictures that are none."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from fulgurite.datamodules.gamecraft.episode import Episode
from fulgurite.datamodules.gamecraft.shards import ShardWriter
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.play.starts import (
    bundled_starts,
    caption_of,
    choose_starts,
    nearest_caption,
    read_picture,
)
from fulgurite.registry import UserError

KNOWN = ("", "dark grey stone level, indoors, walking", "bright red tech level, outdoors, walking")


def episode(key: str, level: str, mean: int) -> Episode:
    rng = np.random.default_rng(len(key))
    frames = np.clip(rng.normal(mean, 40, (33, 32, 48, 3)), 0, 255).astype(np.uint8)
    eyes = np.tile(np.eye(4), (33, 1, 1))
    camera = (eyes[:, :3, :3].astype(np.float32), eyes, np.zeros(33, np.float32), np.zeros((1, 8), np.float32))
    meta = {"game": "freedoom1", "map": level, "kind": "recorded"}
    return Episode(key, frames, *camera, "dim red brick level, outdoors, walking", "", meta)


def test_starts_come_from_bright_episodes_of_different_maps(tmp_path, monkeypatch):
    with ShardWriter(tmp_path / "test") as writer:
        for key, level, mean in (("a", "E1M1", 120), ("b", "E1M1", 120), ("c", "E1M2", 5), ("d", "E2M1", 120)):
            writer.write(episode(key, level, mean))
    weights = tmp_path / "weights"
    (weights / "starts").mkdir(parents=True)
    (weights / "starts" / "old.png").write_bytes(b"")
    (weights / "model_index.json").write_text("{}")
    monkeypatch.setattr(CaptionEncoder, "load", classmethod(lambda cls, path: type("Bank", (), {"known": KNOWN})))
    choose_starts(tmp_path / "test", weights)
    found = bundled_starts(weights)
    assert [s.name for s in found] == ["e1m1", "e2m1"], "E1M2 is all but black; one a map"
    assert {s.caption for s in found} == {KNOWN[2]}, "the nearest that needs no sentence encoder"
    assert found[0].image.size == (48, 32)


def test_the_nearest_caption_is_itself_and_nothing_in_common_is_the_empty_one():
    assert nearest_caption(KNOWN[1], KNOWN) == KNOWN[1]
    assert nearest_caption("a cat", KNOWN) == ""
    assert nearest_caption("a cat", ()) == ""
    assert caption_of(Image.new("RGB", (20, 20), (250, 60, 60)), KNOWN) == KNOWN[2]


@pytest.mark.parametrize("content", ["[]", "{", '{"schema_version": 2}', '{"schema_version": 1, "captions": 3}'])
def test_damaged_captions_are_named(tmp_path, content):
    (tmp_path / "starts").mkdir()
    (tmp_path / "starts" / "starts.json").write_text(content)
    with pytest.raises(UserError, match=r"starts\.json: "):
        bundled_starts(tmp_path)


def test_what_is_no_picture_is_refused_in_a_sentence(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    whole = buffer.getvalue()
    assert read_picture(whole).size == (40, 40)
    for data in (b"", b"GIF89a", whole[:40], json.dumps({}).encode(), b"\xff\xd8" + bytes(50)):
        with pytest.raises(UserError, match="the picture: "):
            read_picture(data)
    huge = whole[:16] + (30000).to_bytes(4, "big") * 2 + whole[24:]
    with pytest.raises(UserError, match="the picture: "):
        read_picture(huge)
