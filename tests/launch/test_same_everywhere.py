"""A run gives the same metrics however its processes are started: one; two by Lightning, FSDP2, torchrun, Ray Train."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STILL = """\
base: base/cpu
seed_everything: 3
model: {class_path: noisy.StillModule}
data: {class_path: digits, init_args: {num_batches: 10, seed: 5}}
trainer: {max_epochs: 2, log_every_n_steps: 1}
"""
ONE, TWO = ("--data.batch_size", "32"), ("--data.batch_size", "16")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617")
WAYS = {
    "ddp": (*TWO, "--trainer.devices", "2", "--trainer.strategy", "ddp"),
    "fsdp2": (*TWO, "--trainer.devices", "2", "--trainer.strategy", "fsdp2"),
    "torchrun": (*TWO,),
    "torchrun fsdp2": (*TWO, "--trainer.strategy", "fsdp2"),
    "ray": (*TWO, "--on", "ray", "--num-workers", "2"),
    "ray fsdp2": (*TWO, "--trainer.strategy", "fsdp2", "--on", "ray", "--num-workers", "2"),
}


@pytest.fixture(scope="session")
def call(child_environment, parts) -> Callable[..., subprocess.CompletedProcess[str]]:
    def start(*words: str, cwd: Path, torchrun: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(TORCHRUN if torchrun else ()), "-m", "fulgurite", "run", *words]
        return subprocess.run(
            command, cwd=cwd, env=child_environment(**parts), capture_output=True, text=True, timeout=600
        )

    return start


def metrics_of(folder: Path) -> dict[str, float]:
    (file,) = (folder / "runs").rglob("record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "done"
    assert [s["state"] for s in record["stages"]] == ["done"] * len(record["stages"])
    return dict(record["metrics"])


def series_of(folder: Path) -> list[tuple[str, ...]]:
    (file,) = (folder / "runs").rglob("fit/metrics.csv")
    return [tuple(line.split(",")) for line in file.read_text().splitlines()]


@pytest.fixture(scope="session")
def alone(call, tmp_path_factory) -> Path:
    """Folder of the run in one process."""
    folder: Path = tmp_path_factory.mktemp("alone")
    (folder / "still.yaml").write_text(STILL)
    done = call("still.yaml", *ONE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_give_what_one_gives(way, alone, call, tmp_path):
    (tmp_path / "still.yaml").write_text(STILL)
    done = call("still.yaml", *WAYS[way], cwd=tmp_path, torchrun=way.startswith("torchrun"))
    assert done.returncode == 0, done.stderr
    wanted, found = metrics_of(alone), metrics_of(tmp_path)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert {"train/loss", "val/accuracy", "test/accuracy", "test/accuracy_constant"} <= found.keys()
    lines, others = series_of(alone), series_of(tmp_path)  # every step, not the last one alone
    assert [line[:3] for line in lines] == [line[:3] for line in others]
    values = [[float(line[3]) for line in found[1:]] for found in (lines, others)]
    assert values[1] == pytest.approx(values[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["torchrun", "ray"])
def test_all_stages_of_dnd_smoke_give_in_two_processes_what_they_give_in_one(way, call, tmp_path):
    quiet = [f"--{s}.model.{noise}" for s in ("overfit", "generator") for noise in ("condition_noise", "target_noise")]
    words = ["dnd/smoke", *(word for flag in quiet for word in (flag, "0"))]
    ray = ("--on", "ray", "--num-workers", "2") if way == "ray" else ()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    done = call(*words, cwd=tmp_path / "one")
    assert done.returncode == 0, done.stderr
    done = call(
        *words, "--generator.data.batch_size", "2", *ray, cwd=tmp_path / "two", torchrun=not ray
    )  # half of the experiment's; `overfit` has one pair alone, `collect` says that it takes one process
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "two") == pytest.approx(metrics_of(tmp_path / "one"), abs=1e-5)
