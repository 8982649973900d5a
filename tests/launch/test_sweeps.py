"""Sweeps run: in this process, on Ray Tune, as trials of W&B's agent; stopped, killed, taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fulgurite.cli import main
from fulgurite.launch.config.experiment import EXPERIMENTS
from fulgurite.launch.stages.run_folder import RunFolder, all_runs
from fulgurite.launch.sweeps.outcome import best_of, rank, write_outcome
from fulgurite.launch.sweeps.run_sweep import _digest
from fulgurite.launch.sweeps.sweep_file import read_sweep
from fulgurite.launch.sweeps.trial import Place, Trial, new_trial

QUICK = ["--trainer.max_epochs", "1", "--data.num_batches", "4"]


pytestmark = pytest.mark.usefixtures("no_key")


def write_sweep(folder: Path, **changes: Any) -> Path:
    """A sweep of four quick trials of hello."""
    content = {
        "program": "hello",
        "command": ["${env}", "fulgurite", "run", "${program}", *QUICK, "-c", "${args_json_file}"],
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": {"model.width": {"values": [2, 3, 4, 5]}},
        **changes,
    }
    file = folder / "quick.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def runs_of(root: Path) -> list[RunFolder]:
    """The trials' runs."""
    return list(all_runs(root / "hello"))


def assert_each_ran_once(root: Path, count: int, interrupted: int = 0) -> None:
    """As many finished runs as trials, none of them twice; at most so many were begun again after a kill."""
    runs = runs_of(root)
    assert len(runs) == count and all(r.finished for r in runs)
    assert len({r.state["digest"] for r in runs}) == count
    assert sum(r.stage("fit")["attempts"] > 1 for r in runs) <= interrupted
    for run in runs:
        steps = [int(line.split(",")[0]) for line in (run.path / "fit" / "metrics.csv").read_text().splitlines()[1:]]
        assert steps == sorted(steps)


def test_a_small_grid_runs_in_this_process_and_again_runs_nothing(tmp_path, capsys):
    root, file = tmp_path / "runs", write_sweep(tmp_path, parameters={"model.width": {"values": [2, 4]}})
    assert main(["sweep", str(file), "--output", str(root)]) == 0
    assert_each_ran_once(root, 2)
    (folder,) = (root / "sweeps").glob("quick-*")
    assert {f.name for f in folder.iterdir()} >= {"trials.md", "parallel.png", "best.yaml", "sweep.yaml"}
    out = capsys.readouterr().out
    values = {t["parameters"]["model.width"]: t["value"] for t in _trials(folder)}
    assert out.splitlines()[0].split() == ["trial", "model.width", "val/accuracy", "state", "took"]
    assert out.splitlines()[1].split()[1] == str(max(values, key=values.__getitem__))
    for run in runs_of(root):
        record = json.loads((run.path / "record.json").read_text())
        width = json.loads((run.path / "resolved.json").read_text())["stages"]["fit"]["settings"]["model"]["init_args"]
        assert record["metrics"]["val/accuracy"] == values[width["width"]]
        assert any((run.path / "wandb").glob("offline-run-*"))
    assert main(["sweep", str(file), "--output", str(root)]) == 0
    assert_each_ran_once(root, 2)
    assert "2 have ended before" in capsys.readouterr().err
    assert main(["run", str(folder / "best.yaml"), "--output", str(root)]) == 0
    (best,) = all_runs(root / "best")
    assert all(s["reused_from"] for s in best.state["stages"].values())  # the trial's own stages, not trained again
    assert main(["sweep", str(file), "--output", str(root), "--new"]) == 0
    assert len(runs_of(root)) == 4


def _trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(f.read_text()) for f in (folder / "trials").glob("*.json")]


def test_the_w_and_b_runs_of_a_sweep_are_one_group(tmp_path):
    root, file = tmp_path / "runs", write_sweep(tmp_path, parameters={"model.width": {"values": [2]}}, project="digits")
    assert main(["sweep", str(file), "--output", str(root)]) == 0
    (folder,) = (root / "sweeps").glob("quick-*")
    (run,) = runs_of(root)
    logged = b"".join(f.read_bytes() for f in run.path.glob("wandb/offline-run-*/*.wandb"))
    assert folder.name.encode() in logged and b"digits" in logged


def test_a_trial_that_fails_is_told_and_the_others_run(tmp_path, capsys):
    parameters = {
        "model.optimizer.class_path": {"value": "torch.optim.SGD"},
        "model.optimizer.lr": {"values": [-1.0, 0.1]},
    }
    file = write_sweep(tmp_path, parameters=parameters)
    assert main(["sweep", str(file), "--output", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "failed: " in out and "1 of 2 trials failed" in out and "best: val/accuracy" in out


def test_a_metric_that_no_run_has_is_told_before_anything_starts(tmp_path, capsys):
    file = write_sweep(tmp_path, metric={"name": "val/f1", "goal": "maximize"})
    assert main(["sweep", str(file), "--output", str(tmp_path / "runs")]) == 2
    assert "hello is not known to have the metric 'val/f1'" in capsys.readouterr().err
    assert not runs_of(tmp_path / "runs")


def test_a_metric_of_the_test_set_is_warned_of(tmp_path, capsys):
    file = write_sweep(tmp_path, metric={"name": "test/accuracy"}, parameters={"model.width": {"values": [2]}})
    assert main(["sweep", str(file), "--output", str(tmp_path / "runs")]) == 0
    assert "has no honest test number any more" in " ".join(capsys.readouterr().err.split())


def test_the_best_is_chosen_among_whole_trials_and_an_infinite_one_comes_last(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path))
    trials = [
        Trial("a", {"model.width": 2}, "done", "1", value=0.5),
        Trial("b", {"model.width": 3}, "stopped", "2", value=0.9),
        Trial("c", {"model.width": 4}, "done", "3", value=0.7),
        Trial("d", {"model.width": 5}, "done", "4", value=None),
        Trial("e", {"model.width": 6}, "failed", "5", error="it broke"),
    ]
    assert [t.id for t in rank(sweep, trials)][:3] == ["c", "a", "b"]
    best = best_of(sweep, trials)
    assert best is not None and best.id == "c"
    place = Place(sweep, tmp_path / "s", tmp_path, False)
    files = write_outcome(place, trials)
    assert [f.name for f in files] == ["trials.md", "parallel.png", "best.yaml"]
    assert yaml.safe_load(files[2].read_text()) == {
        "base": "hello", "trainer.max_epochs": 1, "data.num_batches": 4, "model.width": 4,
    }  # fmt: skip
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert "failed: it broke" in files[0].read_text() and "stopped early" in files[0].read_text()


def test_a_damaged_trial_file_is_as_good_as_none(tmp_path):
    place = Place(read_sweep(write_sweep(tmp_path)), tmp_path / "s", tmp_path, False)
    trial = place.save(new_trial({"model.width": 2}))
    assert place.load(trial) == trial
    for text in ("", "{", "[]", '{"id": 3}', json.dumps({"id": trial.id, "parameters": {}, "schema_version": 99})):
        place.file(trial).write_text(text)
        assert place.load(trial) == trial and place.all() == []


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child_environment: Callable[..., dict[str, str]]) -> Any:
    """W&B's own agent, without a server: `agent(command, run_id, parameters)` is the process that it starts."""
    from wandb.wandb_agent import Agent

    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    for name, value in (("SWEEP_ID", "s1"), ("PROJECT", "p"), ("MODE", "offline"), ("DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("RUN_ID", "SWEEP_PARAM_PATH"):  # the agent sets them; so they are taken back afterwards
        monkeypatch.setenv(f"WANDB_{name}", "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)

    def start(command: list[str], run_id: str, parameters: dict[str, Any]) -> Any:
        found = Agent(None, None, sweep_id="s1")
        found._sweep_command = command
        arguments = {name: {"value": value} for name, value in parameters.items()}
        found._command_run({"run_id": run_id, "program": "hello", "args": arguments})
        return found._run_processes[run_id]

    return start


PARAMETERS = {"model": {"init_args": {"width": 3}}, "trainer.max_time": None, "data.batch_size": 32}
COMMANDS = {
    "file": ["${env}", "fulgurite", "run", "${program}", *QUICK, "-c", "${args_json_file}"],
    "flags": ["${env}", "${interpreter}", "-m", "fulgurite", "run", "${program}", *QUICK, "${args}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_that_wandbs_agent_starts_runs_as_its_trial(kind, agent, tmp_path):
    assert agent(COMMANDS[kind], "trial7", PARAMETERS).wait(240) == 0
    (run,) = runs_of(tmp_path / "runs")
    settings = json.loads((run.path / "resolved.json").read_text())["stages"]["fit"]["settings"]
    assert settings["model"]["init_args"]["width"] == 3 and settings["data"]["init_args"]["batch_size"] == 32
    assert settings["trainer"]["max_time"] is None
    assert list(run.path.glob("wandb/offline-run-*-trial7")) and (run.path / "wandb_id").read_text() == "trial7\n"
    if kind == "flags":
        return
    # another trial with the same settings: nothing is trained again, and the server gets the metrics all the same
    assert agent(COMMANDS[kind], "trial8", PARAMETERS).wait(240) == 0
    assert_each_ran_once(tmp_path / "runs", 1)
    (logged,) = run.path.glob("wandb/offline-run-*-trial8/*.wandb")
    assert b"val/accuracy" in logged.read_bytes()


@pytest.mark.slow
def test_a_trial_that_wandbs_server_cuts_off_does_not_count_as_failed(agent, tmp_path):
    process = agent(["${env}", "fulgurite", "run", "hello", "--trainer.max_epochs", "5000", "${args}"], "trial9", {})
    end = time.monotonic() + 240
    while not list(tmp_path.glob("runs/hello/*/fit/metrics.csv")) and time.monotonic() < end:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(120) == 0
    (run,) = runs_of(tmp_path / "runs")
    assert run.stage("fit")["state"] == "stopped"


def start_sweep(file: Path, agents: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`fulgurite sweep` in a process of its own; it prints to a file, since two of Ray's processes outlive a kill."""
    command = [sys.executable, "-m", "fulgurite", "sweep", str(file), "--agents", str(agents)]
    with (file.parent / "printed.txt").open("wb") as log:
        return subprocess.Popen(command, cwd=file.parent, env=environment, stdout=log, stderr=log)


def end_sweep(file: Path, agents: int, environment: dict[str, str]) -> str:
    """The same to its end; returns what it printed."""
    status = start_sweep(file, agents, environment).wait()
    printed = (file.parent / "printed.txt").read_text()
    assert status == 0, printed
    return printed


def kill_when(process: subprocess.Popen[bytes], folder: Path, num_done: int) -> None:
    """kill -9 once so many trials are done."""
    while process.poll() is None:
        done = [f for f in folder.glob("runs/sweeps/*/trials/*.json") if '"done"' in f.read_text()]
        if len(done) >= num_done:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL


def kill_and_go_on(file: Path, environment: dict[str, str], num_trials: int, num_done: int) -> str:
    """Kill a sweep on two processes when so many trials are done, go on with it, and see that each ran once."""
    root = file.parent / "runs"
    kill_when(start_sweep(file, 2, environment), file.parent, num_done)
    done = {r.path.name: r.state for r in runs_of(root) if r.finished}
    assert num_done <= len(done) < num_trials
    printed = end_sweep(file, 2, environment)
    assert_each_ran_once(root, num_trials, interrupted=2)
    assert all(r.state == done[r.path.name] for r in runs_of(root) if r.path.name in done)
    assert all(list(r.path.glob("wandb/offline-run-*/*.wandb")) for r in runs_of(root))
    assert "on Ray Tune" in printed and "best: val/accuracy" in printed
    return printed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a trial ends with a killed sweep on Linux alone")
def test_a_sweep_on_ray_that_is_killed_goes_on_and_runs_no_trial_twice(tmp_path, child_environment):
    pytest.importorskip("ray.tune")
    file = write_sweep(tmp_path, parameters={"model.width": {"values": [2, 3, 4]}})
    kill_and_go_on(file, child_environment(), num_trials=3, num_done=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="a trial ends with a killed sweep on Linux alone")
def test_sixteen_trials_of_hello_killed_half_way_go_on_and_none_runs_twice(tmp_path, child_environment):
    pytest.importorskip("ray.tune")
    file = tmp_path / "hello.yaml"
    shutil.copyfile(EXPERIMENTS / "sweeps" / "hello.yaml", file)
    print(kill_and_go_on(file, child_environment(), num_trials=16, num_done=8))


@pytest.mark.slow
def test_bayes_and_early_termination_run_on_ray(tmp_path, child_environment, capsys):
    pytest.importorskip("ray.tune")
    pytest.importorskip("optuna")
    file = write_sweep(
        tmp_path, method="bayes", run_cap=2, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
        parameters={
            "model.optimizer.class_path": {"value": "torch.optim.SGD"},
            "model.optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-9, "max": 1e-1},
            "trainer.max_epochs": {"value": 4},
        },
        command=["fulgurite", "run", "${program}", "--data.num_batches", "4", "-c", "${args_json_file}"],
    )  # fmt: skip
    end_sweep(file, 1, child_environment())
    (folder,) = tmp_path.glob("runs/sweeps/*")
    trials = _trials(folder)
    assert len(trials) == 2 and {t["state"] for t in trials} <= {"done", "stopped"}
    assert len({t["parameters"]["model.optimizer.lr"] for t in trials}) == 2
    stopped = [t for t in trials if t["state"] == "stopped"]
    runs = {r.path.name: r for r in runs_of(tmp_path / "runs")}
    assert all(t["steps"] == 2 and not runs[Path(t["run"]).name].finished for t in stopped)
    assert main(["sweep", str(file), "--output", str(tmp_path / "runs")]) == 0  # nothing is left to do
    assert "best: val/accuracy" in capsys.readouterr().out and len(_trials(folder)) == 2


def test_an_edited_experiment_makes_another_sweep(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: hello\ntitle: mine\nmodel: {width: 6}\n")
    file = write_sweep(tmp_path, program="mine.yaml", parameters={"model.width": {"values": [2]}})
    assert read_sweep(file).content["program"] == str(mine.resolve())
    first = _digest(read_sweep(file))
    mine.write_text("base: hello\ntitle: mine\nmodel: {width: 7}\n")
    assert _digest(read_sweep(file)) != first


def test_a_trial_killed_before_its_run_began_still_takes_no_earlier_one(tmp_path):
    root, file = tmp_path / "runs", write_sweep(tmp_path, parameters={"model.width": {"values": [2]}})
    assert main(["sweep", str(file), "--output", str(root)]) == 0
    place = Place(read_sweep(file), tmp_path / "sweep", root, True)
    experiment = place.resolve(new_trial({"model.width": 2}))
    trial, new = place.begun(new_trial({"model.width": 2}), experiment, "now")
    assert new and place.needs_new_run(place.load(trial), experiment)


class Server:
    """Stands for W&B's server and agents: what they were asked."""

    def __init__(self) -> None:
        self.sweeps: list[tuple[dict[str, Any], str | None, str]] = []
        self.agents: list[list[str]] = []

    def sweep(self, content: dict[str, Any], entity: str | None, project: str) -> str:
        self.sweeps.append((content, entity, project))
        return "abc123"

    def popen(self, command: list[str], env: dict[str, str]) -> Server:
        assert env["PATH"].startswith(str(Path(sys.executable).parent))
        self.agents.append(command)
        return self

    def wait(self) -> int:
        return 0


def test_with_a_key_the_sweep_is_made_on_the_server_once_and_agents_start(tmp_path, monkeypatch):
    import wandb

    server = Server()
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setattr(wandb, "sweep", server.sweep)
    monkeypatch.setattr("fulgurite.launch.sweeps.online.subprocess", SimpleNamespace(Popen=server.popen))
    file = write_sweep(tmp_path, entity="me", project="digits")
    for _ in range(2):  # the second call goes on with the sweep of the first
        assert main(["sweep", str(file), "--output", str(tmp_path / "runs"), "--agents", "2"]) == 0
    ((content, entity, project),) = server.sweeps
    assert (entity, project) == ("me", "digits") and content["program"] == "hello"
    assert content["command"][:4] == ["${env}", "fulgurite", "run", "${program}"]
    assert content["command"][-2:] == ["--output", str((tmp_path / "runs").resolve())]
    assert [a[-2:] for a in server.agents] == [["--forward-signals", "me/digits/abc123"]] * 4
    assert not runs_of(tmp_path / "runs")
