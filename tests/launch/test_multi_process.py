"""Two processes of one run (gloo on the CPU), started by Lightning from `fulgurite run`."""

from __future__ import annotations

import json
import subprocess

import pytest

pytestmark = pytest.mark.slow
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "2")


def run_two(fulgurite_process, parts, folder, **env: str) -> subprocess.CompletedProcess[str]:
    return fulgurite_process("run", "noisy.yaml", *TWO, cwd=folder, env={**parts, **env})


def test_the_second_process_follows_the_first_from_seed_to_seed(noisy, fulgurite_process, parts):
    one = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1", "--seeds", "0,1")
    done = fulgurite_process(
        "run", "noisy.yaml", *one, cwd=noisy.parent, env={**parts, "NOTE_BATCHES": str(noisy.parent)}
    )
    assert done.returncode == 0, done.stderr
    (summary,) = (noisy.parent / "runs" / "noisy").glob("seeds-*.json")
    assert json.loads(summary.read_text())["seeds"] == [0, 1]
    assert [len((noisy.parent / f"rank{rank}.txt").read_text().splitlines()) for rank in (0, 1)] == [24, 24]


def test_two_processes_see_different_draws_run_all_stages_and_resume_bit_equal(
    noisy, fulgurite_process, parts, only_run, same_run, tmp_path
):
    text = noisy.read_text()
    folders = {}
    for name in ("whole", "cut"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "noisy.yaml").write_text(text)

    whole = run_two(fulgurite_process, parts, folders["whole"], NOTE_BATCHES=str(folders["whole"]))
    assert whole.returncode == 0, whole.stderr
    run = only_run(folders["whole"])
    record = json.loads((run / "record.json").read_text())
    assert [s["state"] for s in record["stages"]] == ["done", "done"]
    batches = [(folders["whole"] / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert len(batches[0]) == len(batches[1]) == 24
    pictures = [line.partition(" ")[2] for rank in batches for line in rank]
    assert len(set(pictures)) == 48  # no batch came twice

    cut = run_two(fulgurite_process, parts, folders["cut"], TRAP="train_batch_start:7:SIGKILL")
    assert cut.returncode != 0
    again = run_two(fulgurite_process, parts, folders["cut"])
    assert again.returncode == 0, again.stderr
    same_run(only_run(folders["cut"]), run)
