"""`fulgurite bench overhead`: both sides are measured, and what they are is said."""

from __future__ import annotations

import json

from fulgurite.cli import main


def test_both_sides_and_their_ratio_are_printed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "overhead", "--pairs", "2", "--steps", "100", "--json", str(tmp_path / "bench.json")]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    for pair, ratio in enumerate(found["ratios"]):
        speeds = {side: values[pair] for side, values in found["steps_per_s"].items()}
        assert abs(speeds["fulgurite"] / speeds["bare"] - ratio) < 1e-9
    printed = capsys.readouterr().out
    assert f"fulgurite / bare {found['median_ratio']:.3f}" in printed
    assert all(text in printed for text in found["sides"].values())


def test_steps_that_are_no_whole_epochs_are_refused(capsys):
    assert main(["bench", "overhead", "--steps", "150"]) == 2
    assert "multiple of 100" in capsys.readouterr().err
