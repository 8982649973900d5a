"""Captures from GameCraft and from pipelines of diffusers: what they hold, going on, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.paro.captures import CaptureStore, Film
from fulgurite.datamodules.paro.module import AttentionCaptureDataModule
from fulgurite.kernels.adapters.serve import serve
from fulgurite.kernels.api import attention
from fulgurite.lightning_modules.paro.capture import capture
from fulgurite.lightning_modules.paro.subjects import GameCraftSubject, open_subject, read_films
from fulgurite.registry import UserError


def test_what_is_captured(captures: Path) -> None:
    meta = CaptureStore(captures).meta
    assert meta.grid == (18, 2, 3) and (meta.text, meta.side) == (16, "suffix")
    assert (meta.num_layers, meta.num_heads, meta.head_dim) == (3, 2, 32)
    assert len(meta.timesteps) == 4 and meta.steps == (0, 1, 2) and len(meta.edges) == 2
    assert [film.split for film in meta.films] == ["calibrate", "calibrate", "test", "test"]
    layer = CaptureStore(captures).load(CaptureStore(captures).handles[0])
    assert layer.q_HND.shape == layer.k_HND.shape == (2, 124, 32)
    assert layer.seen_N is not None and layer.seen_N.tolist() == [True] * 110 + [False] * 14
    data = AttentionCaptureDataModule(str(captures))
    for split, loader in (("calibrate", data.predict_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        assert [batch.layer for batch in batches] == [0, 1, 2]
        for batch in batches:
            assert {meta.films[h.film].split for h in batch.handles} == {split}
            assert len(batch.handles) == 2 * 3


def test_it_is_what_attention_computes_with(weights: Path, captures: Path) -> None:
    """The captured q and k give the map that the layer used: checked by its output."""
    subject = GameCraftSubject(weights, torch.device("cpu"))
    store, seen = CaptureStore(captures), []

    from fulgurite.kernels.backend import AttentionBackend
    from fulgurite.kernels.place import Place

    class Spy(AttentionBackend):
        def __init__(self) -> None:
            self.place = Place()

        def __call__(self, q, k, v, *, mask, scale):
            out = attention(q, k, v, mask=mask, scale=scale, backend="sdpa")
            seen.append((self.place.grid, self.place.layer, v[-1], out[-1]))
            return out

    with serve(subject.transformer, Spy()):
        subject.run(store.meta.films[0])
    after_first = [entry for entry in seen if entry[0] == (18, 2, 3)]
    for layer in range(3):
        held = store.load(store.handles[layer])
        _, number, v, out = after_first[layer]
        scores = held.q_HND.float() @ held.k_HND.float().mT * held.scale
        p = scores.masked_fill(~held.seen_N, float("-inf")).softmax(-1)
        assert number == layer
        torch.testing.assert_close(p @ v.float(), out.float(), atol=2e-2, rtol=2e-2)  # the weights may run in bfloat16


def test_goes_on_where_it_was_stopped(weights: Path, captures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(captures, folder)
    handles = CaptureStore(folder).handles
    gone = [folder / h.file for h in handles if h.film == 1][:2]
    kept = folder / handles[0].file
    for file in gone:
        file.unlink()
    before = kept.stat().st_mtime_ns
    capture(weights, folder, num_bins=3)
    assert all(file.read_bytes() == (captures / file.name).read_bytes() for file in gone)
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds captures made with another edges, steps"):
        capture(weights, folder, num_bins=2)


def test_refusals(weights: Path, captures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no pipeline \(model_index.json is missing\)"):
        capture(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(UserError, match="holds no captures"):
        AttentionCaptureDataModule(str(tmp_path)).predict_dataloader()
    bare = tmp_path / "bare"
    shutil.copytree(weights, bare)
    shutil.rmtree(bare / "starts")
    with pytest.raises(UserError, match="holds no picture"):
        capture(bare, tmp_path / "out")
    films = tmp_path / "films.jsonl"
    films.write_text('{"text": "w:33", "start": "room0"}\n')
    with pytest.raises(UserError, match="has one chunk"):
        capture(weights, tmp_path / "out", prompts=films)
    films.write_text('{"text": "w:66", "start": "attic"}\n')
    with pytest.raises(UserError, match="no start picture 'attic'; there are room0, room1"):
        capture(weights, tmp_path / "out", prompts=films)
    damaged = tmp_path / "damaged"
    shutil.copytree(captures, damaged)
    store = CaptureStore(damaged)
    (damaged / store.handles[0].file).write_bytes(b"no")
    with pytest.raises(UserError, match="the capture can't be read"):
        store.load(store.handles[0])
    (damaged / "captures.json").write_text('{"schema_version": 9}')
    with pytest.raises(UserError, match="captures of version 9"):
        CaptureStore(damaged)


def test_prompts_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text('a cat\n\n{"text": "a dog", "split": "test", "seed": 7}\n')
    assert read_films(file) == (Film("a cat", "calibrate", 0), Film("a dog", "test", 7))
    wrong = {"": "holds no prompt", '{"text": 1, "colour": 2}': "line 1", '{"text": "x", "split": "a"}': "the split is"}
    for text, match in wrong.items():
        file.write_text(text)
        with pytest.raises(UserError, match=match):
            read_films(file)


def test_the_released_weights_are_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    subject = open_subject(Path("weights/gamecraft-doom"), torch.device("cpu"))
    assert isinstance(subject, GameCraftSubject)
