"""`fulgurite bench viki`: both sides do the same work, told by parts."""

from __future__ import annotations

import json

import pytest

from fulgurite.cli import main

pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_sides_do_the_same_work(policy_folder, records_folder, tmp_path, capsys):
    numbers = {"iterations": 1, "prompts": 4, "minibatch_prompts": 2, "micro_prompts": 2, "group_size": 2}
    flags = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    command = ["bench", "viki", "--policy", str(policy_folder), "--data", json.dumps([str(records_folder)])]
    assert main([*command, *flags, "--max_new_tokens", "8", "--lr", "1e-9", "--json", str(tmp_path / "x.json")]) == 0
    told = json.loads((tmp_path / "x.json").read_text())
    (bare,), (rllib,) = told["seconds"]["bare loop"], told["seconds"]["RLlib"]
    assert bare["completions"] == rllib["completions"] == 8
    assert bare["tokens"] == rllib["tokens"], "the same prompts, weights and seeds"
    for side in (bare, rllib):
        parts = [side[name] for name in ("generate", "reward", "log_probs", "update", "sync")]
        assert all(part >= 0 for part in parts) and sum(parts) <= side["iteration"] * 1.001
    assert told["ratio"] == pytest.approx(rllib["iteration"] / bare["iteration"])
    assert "of the bare loop's time" in capsys.readouterr().out
