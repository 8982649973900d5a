"""Stages with `runner: rllib`: keys, metrics, checkpoints; real runs that are killed, stopped, taken up again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.launch.config.experiment import parse_flags, resolve
from fulgurite.launch.records.metrics_csv import read_metrics
from fulgurite.launch.rllib import stage
from fulgurite.launch.rllib.checkpoints import newest, save
from fulgurite.launch.rllib.metrics import MetricsLog
from fulgurite.launch.rllib.session import ray_session
from fulgurite.launch.rllib.settings import RllibSettings
from fulgurite.registry import UserError


def resolved(*flags):
    return resolve("viki/multi_agent", parse_flags(flags))


def test_an_experiment_says_its_runner():
    stage = resolved("--rllib.iterations", "3").stages[0]
    assert stage.settings.get("runner") == "rllib" and stage.settings.get("rllib", "iterations") == 3
    assert resolved("--rllib.iterations", "4").digest() != resolved("--rllib.iterations", "3").digest()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--runner", "rlib"), "no runner 'rlib'\nDid you mean 'rllib'"),
        (("--rllib.iteration", "3"), "no argument 'iteration'\nDid you mean 'iterations'"),
        (("--rllib.iterations", "many"), "'iterations' is int"),
        (("--model.widthx", "3"), "no argument 'widthx'"),
        (("--trainer.max_epochs", "3"), "`trainer` is Lightning's, and RLlib trains this stage"),
    ],
)
def test_mistakes_are_told_before_anything_starts(flags, text):
    with pytest.raises(UserError) as told:
        resolved(*flags)
    assert text in str(told.value)


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"num_env_runners": -1}, {"object_store_mb": 10}, {"enough": {"test/success": 1.0}}]
)
def test_numbers_out_of_range_are_told(wrong):
    with pytest.raises(UserError, match=f"rllib.{next(iter(wrong))}"):
        RllibSettings(**wrong)


class Improves:
    """An algorithm whose iteration n has the success n / 10."""

    iteration = 0

    def train(self):
        self.iteration += 1
        return {"val/success": self.iteration / 10}

    def save_to_path(self, path):
        (Path(path) / "state").write_text(str(self.iteration))

    def restore_from_path(self, path):
        self.iteration = int((Path(path) / "state").read_text())

    def rllib_metrics(self, result):
        return result


def test_training_ends_when_it_is_enough_and_stays_ended(tmp_path):
    how = RllibSettings(iterations=9, enough={"val/success": 0.3})
    algorithm = Improves()
    log, ended = stage._train(algorithm, algorithm, how, tmp_path, None, None)
    assert ended and algorithm.iteration == 3
    again = Improves()  # as after a crash between the last checkpoint and the report
    log, ended = stage._train(again, again, how, tmp_path, None, None)
    assert ended and again.iteration == 3 and log.last == {"val/success": 0.3}
    more = RllibSettings(iterations=5, enough={"val/success": 0.9})
    assert stage._train(again, again, more, tmp_path, None, None)[1] and again.iteration == 5


def test_a_restored_log_forgets_what_comes_again(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv", 0)
    for iteration in range(1, 8):
        log.append(iteration, {"train/reward": float(iteration), "time/update_s": 1.0})
    assert log.course() == [["train/reward", 3.0, 5.0]]
    MetricsLog(tmp_path / "metrics.csv", 5).append(6, {"train/reward": 60.0})
    rows = [(step, value) for step, _, name, value in read_metrics(tmp_path / "metrics.csv") if name == "train/reward"]
    assert rows == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 60)]
    MetricsLog(tmp_path / "metrics.csv", 0)
    assert read_metrics(tmp_path / "metrics.csv") == []


def test_a_session_starts_a_ray_of_its_own_whatever_the_environment_names(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra viki (ray)")
    given = {}
    monkeypatch.setattr(ray, "init", lambda **how: given.update(how))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_session(RllibSettings()):
        assert given["address"] == "local" and os.path.isdir(given["_temp_dir"])
    assert not os.path.exists(given["_temp_dir"])


class Saves:
    iteration = 3

    def save_to_path(self, path):
        (Path(path) / "state").write_text(str(self.iteration))


def test_one_whole_checkpoint_is_kept(tmp_path):
    assert newest(tmp_path) is None
    algorithm = Saves()
    save(algorithm, tmp_path)
    algorithm.iteration = 5
    save(algorithm, tmp_path)
    assert (newest(tmp_path) / "state").read_text() == "5"
    assert [f.name for f in sorted(tmp_path.iterdir())] == ["iteration-000005", "last.json"]


def test_a_failed_save_keeps_the_one_before(tmp_path, monkeypatch):
    algorithm = Saves()
    save(algorithm, tmp_path)
    algorithm.iteration = 4
    monkeypatch.setattr(Saves, "save_to_path", lambda self, path: (_ for _ in ()).throw(OSError("disk is full")))
    with pytest.raises(UserError, match="disk is full"):
        save(algorithm, tmp_path)
    assert newest(tmp_path).name == "iteration-000003" and not (tmp_path / "iteration-000004").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"folder": "iteration-000009"}'])
def test_a_damaged_checkpoint_is_told(tmp_path, content):
    (tmp_path / "last.json").write_text(content)
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        newest(tmp_path)


SMALL = [
    "--rllib.save_every", "1", "--data.num_records", "30", "--data.num_val", "30", "--data.num_test", "30",
    "--rllib.evaluation_size", "4", "--model.width", "8", "--model.batch_size", "60", "--model.minibatch_size", "30",
    "--model.epochs", "1", "--model.num_envs", "2",
]  # fmt: skip


@pytest.fixture
def start(tmp_path, child_environment):
    pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")

    def call(*flags):
        command = [sys.executable, "-m", "fulgurite", "run", "viki/multi_agent", *SMALL, *flags]
        with (tmp_path / "said.txt").open("w") as said:
            return subprocess.Popen(
                command,
                cwd=tmp_path,
                env=child_environment(STARTED_BY=str(tmp_path)),
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    return call


def run_folder(tmp_path):
    (folder,) = (tmp_path / "runs" / "viki" / "multi_agent").glob("2*")
    return folder


def wait_for_checkpoint(tmp_path, process, timeout_s=240):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if list(tmp_path.glob("runs/viki/multi_agent/2*/fit/checkpoints/last.json")):
            return
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.2)
    raise AssertionError("no checkpoint: " + (tmp_path / "said.txt").read_text())


def left_behind(tmp_path, timeout_s=30):
    """Processes of the run, Ray's too, that are there after they have had the time to end."""
    mark, end = f"STARTED_BY={tmp_path}\0".encode(), time.monotonic() + timeout_s
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak),
    ],
)
def test_a_run_that_is_stopped_goes_on_and_leaves_no_process(start, tmp_path, number, status):
    process = start("--rllib.iterations", "500")
    wait_for_checkpoint(tmp_path, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to Ray's processes too
    else:
        process.send_signal(number)
    assert process.wait(120) == status, (tmp_path / "said.txt").read_text()
    assert not left_behind(tmp_path)
    folder = run_folder(tmp_path)
    reached = json.loads((folder / "fit" / "checkpoints" / "last.json").read_text())["iteration"]
    again = start("--rllib.iterations", "500", "--max-time", "1s")
    assert again.wait(240) == 75, (tmp_path / "said.txt").read_text()
    assert not left_behind(tmp_path)
    rows = [step for step, _, name, _ in read_metrics(folder / "fit" / "metrics.csv") if name == "train/reward"]
    assert rows == list(range(1, reached + 2)), "one iteration more, and none twice"
    assert json.loads((folder / "run.json").read_text())["stages"]["fit"]["state"] == "stopped"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_ends_in_a_report_with_its_controls(start, tmp_path):
    process = start("--rllib.iterations", "2")
    assert process.wait(300) == 0, (tmp_path / "said.txt").read_text()
    assert not left_behind(tmp_path)
    record = json.loads((run_folder(tmp_path) / "record.json").read_text())
    assert record["status"] == "done" and 0 <= record["metrics"]["test/success/random"] < 0.5
    rows = {row[0]: row[1] for row in record["stages"][0]["tables"][0]["rows"]}
    assert rows["planner"] == 1 and set(rows) >= {
        "random",
        "greedy over what is rewarded",
        "trained, likeliest actions",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_fails_leaves_no_process(start, tmp_path):
    process = start("--rllib.iterations", "2", "--model.minibatch_size", "-5")
    assert process.wait(300) not in (0, -9)
    assert not left_behind(tmp_path)
