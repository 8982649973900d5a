"""Fixtures of the tests of launch/: quick runs in forked children, and the experiment that they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PARTS = Path(__file__).parent / "parts"

NOISY = """\
base: base/cpu
seed_everything: 3
model: {class_path: noisy.NoisyModule}
data: {class_path: digits, init_args: {batch_size: 16, num_batches: 12, seed: 5}}
trainer:
  max_epochs: 3
  val_check_interval: 5
  log_every_n_steps: 1
  callbacks:
  - {class_path: noisy.Trap}
  - {class_path: fulgurite.launch.callbacks.ResumePoint, init_args: {every_n_steps: 4}}
  - {class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {monitor: val/accuracy, mode: max}}
"""


@dataclass(frozen=True)
class Outcome:
    """How a command line ended: its status (minus the signal's number, if one killed it) and what it printed."""

    status: int
    output: str


class ForkServer:
    """Runs command lines in forked children of one warm process."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._log = folder / "output.txt"
        self._process = subprocess.Popen(
            [sys.executable, PARTS / "fork_server.py"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, cwd: Path, **env: str) -> Outcome:
        """Run to the end."""
        self.start(*arguments, cwd=cwd, **env)
        return self.wait()

    def start(self, *arguments: str, cwd: Path, **env: str) -> int:
        """Start; returns the process id."""
        assert self._process.stdin
        order = {"argv": arguments, "cwd": str(cwd), "env": env, "log": str(self._log)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._answer()["pid"])

    def wait(self) -> Outcome:
        """Wait for the child that was started last."""
        status = int(self._answer()["status"])
        return Outcome(status, self._log.read_text(encoding="utf-8"))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server."""
        self._process.communicate("")


@pytest.fixture(scope="session")
def parts() -> dict[str, str]:
    """Environment in which experiment files may name the classes of parts/noisy.py."""
    return {"PYTHONPATH": str(PARTS), "FULGURITE_ALLOW_IMPORTS": "noisy"}


@pytest.fixture(scope="session")
def forked(
    child_environment: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkServer]:
    """`forked("run", "noisy.yaml", cwd=…, TRAP=…)`: the command line in a forked child."""
    environment = child_environment(PYTHONPATH=str(PARTS), FULGURITE_ALLOW_IMPORTS="noisy")
    server = ForkServer(environment, tmp_path_factory.mktemp("forked"))
    yield server
    server.close()


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """An experiment file of 36 steps with validations, in a folder of its own."""
    file = tmp_path / "noisy.yaml"
    file.write_text(NOISY, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def uninterrupted(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of NOISY, run in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "noisy.yaml").write_text(NOISY, encoding="utf-8")
    outcome = forked("run", "noisy.yaml", cwd=folder)
    assert outcome.status == 0, outcome.output
    (run,) = (folder / "runs" / "noisy").iterdir()
    return run


@pytest.fixture(scope="session")
def only_run() -> Callable[[Path], Path]:
    """`only_run(folder)`: the one run folder of the experiment `noisy` below a working folder."""

    def find(folder: Path) -> Path:
        (run,) = (folder / "runs" / "noisy").iterdir()
        return run

    return find


@pytest.fixture(scope="session")
def same_run() -> Callable[[Path, Path], None]:
    """Asserts that two run folders hold bit-equal metrics and final weights."""
    import torch

    def check(found: Path, wanted: Path) -> None:
        files = sorted(f.relative_to(wanted) for f in wanted.glob("*/metrics.csv"))
        assert files
        for file in files:
            a, b = ((run / file).read_text().splitlines() for run in (found, wanted))
            different = [(line, other) for line, other in zip(a, b, strict=False) if line != other]
            assert not different and len(a) == len(b), (
                f"{file}: {len(different)} lines of {len(a)} and {len(b)}: {different[:3]}"
            )
        for file in (f.relative_to(wanted) for f in wanted.glob("*/checkpoints/last.ckpt")):
            a, b = (torch.load(run / file, weights_only=True)["state_dict"] for run in (found, wanted))
            assert a.keys() == b.keys()
            assert all(torch.equal(a[k], b[k]) for k in a), file

    return check


@pytest.fixture(scope="session")
def hello_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of three short runs of `hello`, made once: two finished (width 4 and 8), one out of time. Leave them be."""
    from fulgurite.cli import main

    root = tmp_path_factory.mktemp("hello_runs")
    quick = ["run", "hello", "--output", str(root), "--trainer.max_epochs", "1", "--data.num_batches", "4"]
    assert main([*quick, "--model.width", "4"]) == 0
    assert main([*quick, "--model.width", "8"]) == 0
    assert main([*quick, "--model.width", "6", "--max-time", "0.01s"]) == 75
    return root


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without any W&B key or settings, and without a network."""
    for name in [n for n in os.environ if n.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
