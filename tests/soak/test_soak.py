"""Kills at random moments in every stage: the next run ends well, with metrics bit-equal to an uninterrupted run.

The moments are drawn anew at each call; SOAK_SEED in the environment repeats a call's (its number is printed).
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

EXPERIMENTS = {  # what to run, and at how many moments of each stage to kill it
    "hello": (
        ("hello", "--trainer.max_epochs", "3", "--data.num_batches", "60", "--trainer.val_check_interval", "25"), 5,
    ),
    "dnd": (("dnd/smoke",), 5),
    "gamecraft": (("gamecraft/smoke",), 1),
}  # fmt: skip
TIMED = re.compile("second|clips_encoded|^rejected/")
"""Metrics that an interruption changes: of the pace, and what filters refused, twice where work is done twice."""
SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))


def stages(folder: Path) -> list[dict]:
    found = list((folder / "runs").rglob("run.json"))
    return [{"name": n, **s} for n, s in json.loads(found[0].read_text())["stages"].items()] if found else []


def outcome(folder: Path) -> dict[str, str]:
    """All metrics, tables and sentences of a run; of a stage that measures time, its other metrics."""
    (run,) = [f.parent for f in (folder / "runs").rglob("run.json")]
    found = {str(f.relative_to(run)): f.read_text() for f in sorted(run.rglob("metrics.csv"))}
    for file in sorted(run.rglob("results.json")):
        told = json.loads(file.read_text())
        metrics = told.get("metrics", {})
        kept = {k: v for k, v in metrics.items() if not TIMED.search(k)}
        found[str(file.relative_to(run))] = repr(told if kept == metrics else kept)  # as text, since nan is not nan
    return found


@pytest.fixture(scope="module", params=EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def whole(request, tmp_path_factory, child_environment):
    """Command, its environment, the folder of an uninterrupted run, and the number of moments."""
    arguments, moments = request.param
    if arguments == ("gamecraft/smoke",):
        pytest.importorskip("vizdoom")
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "fulgurite", "run", *arguments]
    subprocess.run(command, cwd=folder, env=child_environment(), check=True, capture_output=True)
    return command, child_environment(), folder, moments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_every_stage_survives_kills_at_random_moments(whole, number, tmp_path):
    command, environment, uncut, moments = whole
    print(f"SOAK_SEED={SEED}")
    draw = random.Random(f"{SEED}{number}")
    for place, stage in enumerate(stages(uncut)):
        for moment in range(moments):
            folder = tmp_path / f"{stage['name']}-{moment}"
            folder.mkdir()
            wait_s = draw.uniform(0, max(stage["seconds"], 0.05))
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            while process.poll() is None:
                begun = stages(folder)
                if begun and begun[place]["state"] != "pending":
                    break
                time.sleep(0.002)
            time.sleep(wait_s)
            process.send_signal(number)
            _, printed = process.communicate()
            assert process.returncode in (0, 143, -number), printed
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            print(f"{stage['name']}: {number.name} after {wait_s:.3f} s, ended with {process.returncode}", flush=True)
            assert outcome(folder) == outcome(uncut), (
                f"{stage['name']}, {number.name} after {wait_s:.3f} s, SOAK_SEED={SEED}"
            )
