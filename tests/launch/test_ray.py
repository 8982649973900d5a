"""`fulgurite run --on ray`: what can't work is refused, a lost worker is replaced, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fulgurite.cli import main
from fulgurite.launch.clusters.ray_train import _raise_mistake
from fulgurite.launch.clusters.ray_worker import WORD_FILE, Work, _check_machine, work
from fulgurite.launch.stages.run_folder import code_digest
from fulgurite.registry import UserError

LONG = """\
base: base/cpu
seed_everything: 3
model: {class_path: noisy.StillModule}
data: {class_path: digits, init_args: {batch_size: 16, num_batches: 400, seed: 5}}
trainer:
  max_epochs: 2
  callbacks:
  - {class_path: fulgurite.launch.callbacks.ResumePoint, init_args: {every_n_steps: 20}}
"""

REFUSED = {
    "--num-workers without --on ray": ("--num-workers", "2"),
    "at least one worker": ("--on", "ray", "--num-workers", "0"),
    "--resources CPU:2: give names and amounts": ("--on", "ray", "--resources", "CPU:2"),
    "ray job submit": ("--on", "ray", "--address", "ray://head:10001"),
    "no way to run fsdp on Ray Train": ("--on", "ray", "--trainer.strategy", "fsdp"),
    "and this machine has": ("--on", "ray", "--num-workers", "64", "--trainer.accelerator", "gpu"),
    "deepspeed needs the package deepspeed": ("--on", "ray", "--trainer.strategy", "deepspeed_stage_2"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=REFUSED.keys())
def test_what_can_t_work_on_ray_is_refused_before_anything_starts(text, words, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["run", "hello", "--output", str(tmp_path / "runs"), *words]) == 2
    told = capsys.readouterr().err
    assert text in told and len(told.splitlines()) <= 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", [None, "another machine's"])
def test_a_folder_of_the_same_path_on_another_machine_is_refused_as_a_mistake(written, tmp_path):
    given: dict[str, Any] = {"folder": tmp_path, "cwd": str(tmp_path), "code": code_digest(), "word": "the driver's"}
    order = Work(stage=None, stop_at=None, wandb=None, **given)  # type: ignore[arg-type]
    if written:
        (tmp_path / WORD_FILE).write_text(written)
    with pytest.raises(RuntimeError) as failed:  # for Ray, which then ends those that wait
        work({"work": order})
    with pytest.raises(UserError, match="does not see the run's folder") as told:
        _raise_mistake(SimpleNamespace(worker_failures={0: OSError("gone"), 1: failed.value}))
    assert len(str(told.value).splitlines()) == 2 and "[[" not in str(told.value)


def test_a_machine_that_sees_the_word_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / WORD_FILE).write_text("word")
    order = Work(None, tmp_path, None, None, str(tmp_path), code_digest(), "word")  # type: ignore[arg-type]
    _check_machine(order)


MISTAKEN = """\
from noisy import StillModule

from fulgurite.registry import UserError


class MistakenModule(StillModule):
    def on_train_start(self):
        if self.global_rank == 1:
            raise UserError("only this process finds it")
"""


@pytest.mark.slow
def test_a_mistake_that_one_worker_finds_ends_all_with_its_words(child_environment, parts, tmp_path):
    (tmp_path / "long.yaml").write_text(LONG.replace("noisy.Still", "mistaken.Mistaken"))
    (tmp_path / "mistaken.py").write_text(MISTAKEN)
    own = {"PYTHONPATH": f"{parts['PYTHONPATH']}{os.pathsep}{tmp_path}", "FULGURITE_ALLOW_IMPORTS": "noisy,mistaken"}
    done = subprocess.run(
        [sys.executable, "-m", "fulgurite", "run", "long.yaml", "--on", "ray", "--num-workers", "2"],
        cwd=tmp_path, env=child_environment(**own), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 2 and "only this process finds it" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.glob(f"runs/*/*/fit/{WORD_FILE}"))


@pytest.fixture
def begin(child_environment, parts, tmp_path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "long.yaml").write_text(LONG)

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fulgurite", "run", "long.yaml", *words],
            cwd=tmp_path, env=child_environment(**parts), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return start


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 150
    while time.monotonic() < end and process.poll() is None:
        for file in folder.glob("runs/*/*/fit/metrics.csv"):
            if any(line.startswith(f"{step},") for line in file.read_text().splitlines()):
                return
        time.sleep(0.05)
    raise AssertionError(f"no step {step}: {process.communicate()[0] if process.poll() is not None else 'too slow'}")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [p for p in found if "RayTrainWorker" in " ".join(p.cmdline())]


def outcome_of(folder: Path) -> tuple[dict[str, float], list[str], Path]:
    (run,) = (folder / "runs" / "long").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "done"
    return record["metrics"], (run / "fit" / "metrics.csv").read_text().splitlines(), run


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_it_had_not_been(begin, tmp_path):
    words = ("--on", "ray", "--num-workers", "2")
    process = begin(*words)
    wait_for_step(tmp_path, 50, process)
    victim = workers_of(process)[-1]
    victim.send_signal(signal.SIGKILL)
    told, _ = process.communicate(timeout=250)
    assert process.returncode == 0, told
    assert "a worker was lost" in told
    metrics, lines, run = outcome_of(tmp_path)
    assert "a worker was lost" in (run / "report.md").read_text()
    whole = begin("--new", *words)
    assert whole.wait(timeout=250) == 0, whole.communicate()[0]
    other = next(p for p in (tmp_path / "runs" / "long").iterdir() if p != run)
    assert (other / "fit" / "metrics.csv").read_text().splitlines() == lines
    assert json.loads((other / "record.json").read_text())["metrics"] == metrics


@pytest.mark.slow
def test_ctrl_c_saves_leaves_no_process_of_ray_s_and_a_plain_run_goes_on(begin, tmp_path):
    process = begin("--on", "ray")
    wait_for_step(tmp_path, 50, process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in " ".join(p.cmdline()) for p in children)
    os.kill(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and "goes on where it stopped" in told, told
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone and not alive
    plain = begin()
    told, _ = plain.communicate(timeout=150)
    assert plain.returncode == 0 and "(goes on)" in told, told
    metrics, lines, _ = outcome_of(tmp_path)
    steps = [line.split(",")[0] for line in lines[1:] if "train/loss" in line]
    assert steps == [str(s) for s in range(10, 801, 10)]
    assert metrics["test/accuracy"] > 0.8
