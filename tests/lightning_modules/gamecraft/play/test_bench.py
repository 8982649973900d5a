"""`fulgurite bench gamecraft`: the numbers fit together, and the parts of a chunk are counted as they are called."""

from __future__ import annotations

import json

import pytest
import torch

from fulgurite.cli import main


def test_the_parts_make_up_a_chunk_and_keys_are_timed(tmp_path, capsys):
    out = tmp_path / "bench.json"
    line = ["bench", "gamecraft", "--model", "tiny", "--size", "32x48", "--steps", "3", "--chunks", "2"]
    assert main([*line, "--device", "cpu", "--play_s", "3", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["frames_per_s"] == pytest.approx(33 * 2 / sum(found["chunk_s"]))
    network, decoder, rest = found["parts"]
    assert (network["calls"], decoder["calls"]) == (3, 1)
    assert network["flops"] > 0 and decoder["flops"] > 0 and rest["flops"] is None
    assert all(part["seconds"] > 0 for part in found["parts"])
    game = found["game"]
    assert game["latency_median_s"] <= game["latency_95_s"]
    assert game["bound_s"] > 0
    printed = capsys.readouterr().out
    assert f"sustained {found['frames_per_s']:.1f} frames/s" in printed and "random weights" in printed


def test_operations_are_those_of_the_network_called_as_often_as_steps_are_asked_for(tmp_path):
    flops = []
    for steps in (2, 4):
        out = tmp_path / f"{steps}.json"
        line = ["bench", "gamecraft", "--model", "tiny", "--size", "32x48", "--steps", str(steps), "--chunks", "1"]
        assert main([*line, "--device", "cpu", "--play_s", "0", "--json", str(out)]) == 0
        flops.append(json.loads(out.read_text())["parts"][0]["flops"])
    assert flops[1] == 2 * flops[0]


def test_backends_are_compared_by_attention_and_by_chunk(tmp_path, capsys):
    out = tmp_path / "bench.json"
    line = ["bench", "gamecraft", "--model", "tiny", "--size", "32x48", "--steps", "2", "--chunks", "1"]
    compared = ["--attention", "sdpa,paro,auto", "--density", "0.8"]
    assert main([*line, *compared, "--device", "cpu", "--play_s", "0", "--json", str(out)]) == 0
    sdpa, paro, auto = json.loads(out.read_text())["attention"]
    assert [times["name"] for times in (sdpa, paro, auto)] == ["sdpa", "paro", "auto"]
    assert sdpa["tokens"] == 18 * 2 * 3 + 12 and paro["tokens"] == auto["tokens"] == 18 * 2 * 3 + 16
    assert sdpa["density"] == 1.0 and 0 < paro["density"] <= 1.0
    # on a CPU paro is emulated, with the reference's arithmetic: it can't be free, and auto knows better
    assert 0 < sdpa["attention_ms"] < sdpa["chunk_ms"] and paro["attention_ms"] < paro["chunk_ms"]
    assert auto["attention_ms"] < paro["attention_ms"]
    assert "x attention" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_backends_are_compared_compiled_and_as_graphs(tmp_path):
    out = tmp_path / "bench.json"
    line = ["bench", "gamecraft", "--model", "student", "--size", "64x112", "--steps", "2", "--chunks", "2"]
    assert main([*line, "--attention", "sdpa,paro,auto", "--play_s", "0", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["compiled"] and found["cuda_graphs"]
    assert all(0 < times["attention_ms"] < times["chunk_ms"] for times in found["attention"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "60x112"], "multiples of 16"),
        (["--attention", "sdpa,prao"], "Did you mean 'paro'?"),
        (["--attention", "paro", "--density", "2"], "--density 2"),
        (["--model", "13b"], "one of tiny"),
        (["--chunks", "0"], "--chunks 0"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(capsys, options, said):
    assert main(["bench", "gamecraft", "--device", "cpu", *options]) == 2
    assert said in capsys.readouterr().err
