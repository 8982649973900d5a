"""The folder of captures: what is written is read, what is missing is known, steps stand for their bins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.paro.captures import CaptureMeta, CaptureStore, Film, Handle, steps_to_capture
from fulgurite.datamodules.paro.recorder import RecordingAttention
from fulgurite.kernels.api import attention
from fulgurite.kernels.paro.calibration import bin_of, bins_of
from fulgurite.kernels.place import Place
from fulgurite.registry import UserError

FILMS = (Film("a", "calibrate", 0), Film("b", "test", 1))
META = CaptureMeta("Net", "0" * 64, (2, 3, 4), 5, "prefix", 2, 3, 8, (9.0, 6.0, 3.0, 1.0), (4.5,), (0, 2), FILMS)


def test_there_and_back(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path / "new", META)
    q, k, seen = torch.randn(3, 29, 8).bfloat16(), torch.randn(3, 29, 8).bfloat16(), torch.arange(29) < 20
    assert len(store.missing(0)) == 4
    store.write(Handle(0, 2, 1), q, k, seen)
    store.write(Handle(1, 0, 1), q, k)
    again = CaptureStore(tmp_path / "new")
    assert again.meta == META and again.meta.layout.num_tokens == 29
    assert again.handles == (Handle(0, 2, 1), Handle(1, 0, 1))
    assert Handle(0, 2, 1) not in again.missing(0) and len(again.missing(0)) == len(again.missing(1)) == 3
    held = again.load(Handle(0, 2, 1))
    assert torch.equal(held.q_HND, q) and torch.equal(held.k_HND, k) and torch.equal(held.seen_N, seen)
    assert again.load(Handle(1, 0, 1)).seen_N is None
    assert again.timestep(Handle(0, 2, 1)) == 3.0
    assert again.select(1, "test") == [Handle(1, 0, 1)]
    with pytest.raises(UserError, match="no capture of layer 0 from films of the split 'test'"):
        again.select(0, "test")
    with pytest.raises(UserError, match="made with another model_hash"):
        CaptureStore(tmp_path / "new", dataclasses.replace(META, model_hash="1" * 64))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 30])
@pytest.mark.parametrize("num_bins", [1, 2, 4, 9])
def test_every_bin_has_a_step(num_steps: int, num_bins: int) -> None:
    timesteps = [1000.0 * (num_steps - i) / num_steps for i in range(num_steps)]
    edges = bins_of(timesteps, num_bins)
    steps = steps_to_capture(timesteps, edges)
    assert [bin_of(timesteps[step], edges) for step in steps] == list(range(len(edges) + 1))


def test_recording_is_dense_attention_and_shows_the_last_of_the_batch() -> None:
    torch.manual_seed(0)
    seen: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []

    def sink(place: Place, q: torch.Tensor, k: torch.Tensor, keys: torch.Tensor | None) -> None:
        seen.append((place.layer, q, keys))

    backend = RecordingAttention(sink)
    q, k, v = torch.randn(3, 2, 2, 9, 4)
    mask = (torch.arange(9) < torch.tensor([[9], [6]]))[:, None, None]
    wanted = attention(q, k, v, mask=mask, backend="sdpa")
    assert torch.equal(attention(q, k, v, mask=mask, backend=backend), wanted)
    assert not seen  # outside of the layers that are counted
    backend.place.layer = 4
    attention(q, k, v, mask=mask, backend=backend)
    attention(q, k, v, backend=backend)
    attention(q, k[:, :, :3], v[:, :, :3], backend=backend)
    assert [layer for layer, _, _ in seen] == [4, 4]
    assert torch.equal(seen[0][1], q[1])
    assert seen[0][2] is not None and seen[0][2].tolist() == [True] * 6 + [False] * 3
    assert seen[1][2] is None
