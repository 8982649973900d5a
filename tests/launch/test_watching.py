"""`fulgurite runs` while something runs: the table, stopping in good order, going on."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from fulgurite.cli import main
from fulgurite.launch.records.progress import NAME, read_progress, write_progress
from fulgurite.launch.stages.run_folder import RunFolder, all_runs, read
from fulgurite.launch.stages.watching import _table, resume, watched
from fulgurite.registry import UserError

LONG = ["--trainer.max_epochs", "3000"]


@pytest.fixture
def under_way(hello_runs: Path, tmp_path: Path) -> RunFolder:
    """A run that is out of time, made to look as if this process were at work on it (hold its lock for that)."""
    root = Path(shutil.copytree(hello_runs, tmp_path / "runs"))
    *_, run = all_runs(root)
    folder = run.path / "fit"
    folder.mkdir(exist_ok=True)
    write_progress(folder, 25, 100, 2.5)
    (folder / "metrics.csv").write_text("step,epoch,metric,value\n25,0,train/loss,1.25\n")
    return run


def test_a_run_under_way_has_its_stage_progress_speed_time_left_metric_and_place(under_way):
    root = under_way.path.parents[1]
    assert watched(root) == []  # its lock is free
    with under_way.lock():
        (line,) = watched(root)
    assert line.run == f"hello/{under_way.path.name}" and line.stage == "fit (1 of 2)"
    assert (line.progress, line.speed, line.left) == ("step 25 of 100, 25 %", "2.5 steps/s", "30 s")
    assert line.metric == "train/loss 1.25" and line.where.endswith(f":{os.getpid()}")
    shown = io.StringIO()
    Console(file=shown, width=200).print(_table([line]))
    assert "train/loss 1.25" in shown.getvalue() and "where" in shown.getvalue()


def test_a_run_whose_process_is_gone_is_not_shown_and_its_lock_not_asked_for(under_way, monkeypatch):
    under_way.state["process"]["pid"] = 2**22 + 1  # no process has that number
    under_way.save()
    monkeypatch.setattr(RunFolder, "is_locked", lambda run: pytest.fail("asked for the lock"))
    assert watched(under_way.path.parents[1]) == []


def test_watch_prints_a_plain_table_where_there_is_no_terminal(under_way, capsys):
    root = str(under_way.path.parents[1])
    with under_way.lock():
        assert main(["runs", "watch", "--output", root]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:3] == ["run", "stage", "progress"] and "step 25 of 100" in out
    assert main(["runs", "watch", "--output", root]) == 0
    assert "nothing runs in" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x"}', '{"schema_version": 9, "step": 3}'])
def test_a_damaged_progress_file_is_as_good_as_none(text, tmp_path):
    (tmp_path / NAME).write_text(text)
    assert read_progress(tmp_path) == {}


def test_a_run_is_stopped_in_good_order_from_elsewhere_and_resumed_by_its_command(forked, noisy, tmp_path, capsys):
    root = tmp_path / "runs"
    forked.start("run", "hello", *LONG, "--output", str(root), cwd=tmp_path)
    end = time.monotonic() + 200
    while not list(root.glob(f"hello/*/fit/{NAME}")) and time.monotonic() < end:
        time.sleep(0.1)
    (run,) = all_runs(root)
    assert main(["runs", "watch", "--output", str(root)]) == 0
    assert run.path.name in (out := capsys.readouterr().out) and " of 300000" in out
    assert main(["runs", "stop", run.path.name, "--output", str(root)]) == 0
    assert "runs resume" in capsys.readouterr().out
    assert forked.wait().status == 143
    found = read(run.path)
    assert found is not None and found.stage("fit")["state"] == "stopped"
    assert main(["runs", "stop", run.path.name, "--output", str(root)]) == 2
    assert "nothing works on this run" in capsys.readouterr().err


def test_resume_gives_the_recorded_command_in_its_folder_without_new(under_way, monkeypatch):
    record = json.loads((under_way.path / "record.json").read_text())
    record["command"] = "fulgurite run hello --new --model.width 6 --output runs"
    (under_way.path / "record.json").write_text(json.dumps(record))
    called: list[tuple[list[str], str]] = []

    class Done:
        returncode = 75

    monkeypatch.setattr("subprocess.run", lambda words, cwd: called.append((words[1:], cwd)) or Done)
    assert resume(under_way) == 75
    assert called == [(["-m", "fulgurite", "run", "hello", "--model.width", "6", "--output", "runs"], os.getcwd())]
    record["command"] = "fulgurite.run('hello')"
    (under_way.path / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="not begun by `fulgurite run`"):
        resume(under_way)
    with under_way.lock(), pytest.raises(UserError, match="is under way"):
        resume(under_way)
    finished = next(r for r in all_runs(under_way.path.parents[1]) if r.finished)
    with pytest.raises(UserError, match="this run is finished"):
        resume(finished)


def test_a_finished_fit_leaves_no_progress_file(hello_runs):
    assert not list(hello_runs.rglob(NAME))
