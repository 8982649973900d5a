"""`fulgurite bench dnd`, on the CPU and small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fulgurite.cli import main
from fulgurite.lightning_modules.dnd import bench


def test_it_tells_both_sides_and_their_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.CASCADES, "qwen2.5-0.5b", ([[4, 12, 20], [6, 5, 9], [13, 4, 10]], 3))
    monkeypatch.setitem(bench.MATMUL_SIDE, "cpu", 64)
    file = tmp_path / "speed.json"
    assert main(["bench", "dnd", "--repeats", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert set(found["sides"]) == {"plain", "ours"}
    assert all(side["forward_s"] > 0 and side["step_s"] > side["forward_s"] for side in found["sides"].values())
    assert 0 < found["ours_to_plain"] < 0.02 and found["forward_flops"] > 0
    printed = capsys.readouterr().out
    assert "times as fast forward" in printed and "not finite" not in printed


def test_fine_tuning_of_the_same_size_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2Config

    def small(**settings: object) -> Qwen2Config:
        return Qwen2Config(**{**settings, "num_hidden_layers": 1, "vocab_size": 64, "intermediate_size": 32})

    monkeypatch.setattr("transformers.Qwen2Config", small)
    monkeypatch.setattr(bench, "ROWS", 1)
    monkeypatch.setattr(bench, "TOKENS", 8)
    assert bench.fine_tuning_s(1, torch.device("cpu"), 0) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cascade", "gpt"], "--cascade gpt: one of qwen2.5-0.5b, smollm2-135m"),
        (["--repeats", "0"], "--repeats 0"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dnd", *arguments]) == 2
    assert said in capsys.readouterr().err
