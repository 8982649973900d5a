"""Captions: token states of a frozen encoder, and a bank that stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.sources.download import fetch
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def encoder() -> Iterator[CaptionEncoder]:
    fetch("tiny-random-encoder")  # made on this machine, not downloaded
    yield CaptionEncoder("tiny-random-encoder", length=16)


def test_states_mask_and_mean(encoder: CaptionEncoder) -> None:
    captions = ["a hall", "", "a hall", "a caption that is far longer than sixteen tokens"]
    states, mask, pooled = encoder(captions)
    assert states.shape == (4, 16, 32) and mask.shape == (4, 16) and pooled.shape == (4, 32)
    assert mask.dtype == torch.bool and states.dtype == pooled.dtype == torch.float32
    assert mask.any(1).all()  # the empty caption has its special tokens
    assert mask[3].all() and mask[1].sum() < mask[0].sum() < 16
    torch.testing.assert_close(pooled[0], states[0][mask[0]].mean(0))
    assert torch.equal(states[0], states[2])
    assert encoder.known == tuple(dict.fromkeys(captions))


def test_a_saved_bank_answers_alike_and_needs_no_encoder(
    encoder: CaptionEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = encoder(["a hall", ""])
    encoder.save(tmp_path / "bank.safetensors")
    loaded = CaptionEncoder.load(tmp_path / "bank.safetensors")
    monkeypatch.setattr(CaptionEncoder, "_add", lambda self, captions: pytest.fail("the encoder was wanted"))
    for mine, other in zip(loaded(["a hall", ""]), wanted, strict=True):
        assert torch.equal(mine, other)


def test_a_caption_out_of_the_bank_brings_the_encoder(encoder: CaptionEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "bank.safetensors")
    loaded = CaptionEncoder.load(tmp_path / "bank.safetensors")
    for mine, other in zip(loaded(["something new", "a hall"]), encoder(["something new", "a hall"]), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)


def test_banks_that_cannot_be_read(encoder: CaptionEncoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bank of captions"):
        CaptionEncoder.load(tmp_path / "absent.safetensors")
    encoder.save(tmp_path / "bank.safetensors")
    whole = (tmp_path / "bank.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no bank of captions"):
        CaptionEncoder.load(tmp_path / "cut.safetensors")
    (tmp_path / "old.safetensors").write_bytes(whole.replace(b'"schema_version":"1"', b'"schema_version":"7"'))
    with pytest.raises(UserError, match="another version than 1"):
        CaptionEncoder.load(tmp_path / "old.safetensors")


def test_the_bank_is_the_same_within_mixed_precision(encoder: CaptionEncoder) -> None:
    plain, mixed = CaptionEncoder("tiny-random-encoder"), CaptionEncoder("tiny-random-encoder")
    wanted = [plain(["a hall"]), plain(["a cave", ""])]
    with torch.autocast("cpu", torch.bfloat16):
        found = [mixed(["a hall"]), mixed(["a cave", ""])]
    for a, b in zip(wanted, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
