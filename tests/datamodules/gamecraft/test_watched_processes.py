"""Recording processes under watch: one that hangs is killed and its batch begun again, three times at most."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.datamodules.gamecraft.units import Unit, plan_units
from fulgurite.datamodules.gamecraft.watched_processes import ProcessLost, WatchedProcesses
from fulgurite.registry import UserError

FAULTY = """
import os, signal, time

class Faulty:
    def __init__(self, folder, num_faults, fault, name):
        self.folder, self.num_faults, self.fault, self.name = folder, num_faults, fault, name

    def record(self, batch):
        for unit in batch:
            yield unit, 0
            seen = len(list(self.folder.glob(f"{unit.index}-*")))
            (self.folder / f"{unit.index}-{seen}").write_text(str(os.getpid()))
            if unit.index == 2 and seen < self.num_faults:
                if self.fault == "raises":
                    raise LookupError("no such start")
                if self.fault == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(3600)
            yield unit, 33

    def close(self):
        (self.folder / f"closed-{os.getpid()}").touch()
"""


def processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, num_faults: int, fault: str, **options
) -> WatchedProcesses:
    (folder / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(folder)
    make = functools.partial(importlib.import_module("faulty").Faulty, folder, num_faults, fault)
    return WatchedProcesses(make, 2, **options)


def batches() -> list[list[Unit]]:
    units = plan_units("train", "recorded", [("freedoom2", "map07")], 40, seed=5, num_clips=1)
    return [[unit] for unit in units[:4]]


def test_a_hung_process_is_killed_and_its_batch_begun_again(tmp_path, monkeypatch, capsys):
    """Every frame counts once, and the process that hung is gone."""
    watched = processes(tmp_path, monkeypatch, 1, "hangs", silence_s=5)
    assert sum(watched.record(batches())) == 4 * 33 and watched.hangs == 1
    pids = [int((tmp_path / f"2-{n}").read_text()) for n in range(2)]
    assert len(set(pids)) == 2 and not Path(f"/proc/{pids[0]}").exists()
    assert capsys.readouterr().err.count("map07 (part train, unit 2, seed 5) gave nothing for 5 s: killed") == 1
    assert len(list(tmp_path.glob("closed-*"))) == 2  # those that ended in good order


def test_one_that_hangs_every_time_is_named(tmp_path, monkeypatch):
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"map07 \(part train, unit 2, seed 5\) gave nothing for 5 s, 3 times") as error:
        list(processes(tmp_path, monkeypatch, 99, "hangs", silence_s=5).record(batches()))
    assert len(str(error.value).splitlines()) <= 6 and time.monotonic() - begun < 60
    assert (tmp_path / "2-2").exists() and not (tmp_path / "2-3").exists()


@pytest.mark.parametrize(("fault", "error"), [("raises", LookupError), ("killed", ProcessLost)])
def test_an_error_comes_through_and_a_lost_process_is_told(tmp_path, monkeypatch, fault, error):
    with pytest.raises(error) as caught:
        list(processes(tmp_path, monkeypatch, 99, fault).record(batches()))
    if error is LookupError:
        assert "faulty.py" in caught.value.__notes__[0]  # where it came from
    pids = {int(path.read_text()) for path in tmp_path.glob("[0-9]-*")} - {os.getpid()}
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_that_records_does_without_torch(child_environment) -> None:
    """Each would take seconds and hundreds of megabytes more."""
    code = "import sys, fulgurite.datamodules.gamecraft.recorder; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), timeout=60)
    assert done.returncode == 0
