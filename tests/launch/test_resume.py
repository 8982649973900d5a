"""Runs that are cut off go on where they stopped, bit for bit."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from filelock import FileLock

pytestmark = pytest.mark.slow

CUTS = {
    "mid-epoch, killed": "train_batch_start:6:SIGKILL",
    "mid-epoch, terminated": "train_batch_start:6:SIGTERM",
    "right after a save, killed": "train_batch_start:8:SIGKILL",
    "while a checkpoint is made, killed": "save_checkpoint:8:SIGKILL",
    "before the first save, killed": "train_batch_start:2:SIGKILL",
    "in a validation, killed": "validation_batch_end:10:SIGKILL",
    "in a validation, terminated": "validation_batch_end:10:SIGTERM",
    "at a validation's end, killed": "validation_end:17:SIGKILL",
    "last batch of an epoch, terminated": "train_batch_start:11:SIGTERM",
    "end of an epoch, killed": "train_epoch_end:12:SIGKILL",
    "end of an epoch, terminated": "train_epoch_end:24:SIGTERM",
    "start of an epoch, killed": "train_epoch_start:12:SIGKILL",
    "last step, killed": "train_batch_end:36:SIGKILL",
    "in the test, killed": "test_batch_end:0:SIGKILL",
    "in the test, terminated": "test_batch_end:0:SIGTERM",
    "mid-epoch, Ctrl-C": "train_batch_start:6:SIGINT",
}
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}


@pytest.mark.parametrize("trap", CUTS.values(), ids=CUTS.keys())
def test_a_cut_run_ends_as_if_it_had_not_been_cut(trap, noisy, forked, uninterrupted, only_run, same_run):
    cut = forked("run", noisy.name, cwd=noisy.parent, TRAP=trap)
    assert cut.status == STATUS[trap.rpartition(":")[2]], cut.output
    assert "Traceback" not in cut.output
    if not trap.endswith("SIGKILL"):
        record = json.loads((only_run(noisy.parent) / "record.json").read_text())
        assert (record["status"], record["error"]) == ("done" if trap.startswith("test") else "stopped", None)
    again = forked("run", noisy.name, cwd=noisy.parent)
    assert again.status == 0 and "lacks" not in again.output, again.output
    same_run(only_run(noisy.parent), uninterrupted)
    assert json.loads((only_run(noisy.parent) / "record.json").read_text())["status"] == "done"


VARIANTS = {
    "a number of steps instead of epochs": "--trainer.max_epochs -1 --trainer.max_steps 29",
    "gradients of three batches": "--trainer.accumulate_grad_batches 3 --trainer.max_epochs 6",
    "validation at the epoch's end": "--trainer.val_check_interval 1.0",
    "validation across epochs": "--trainer.check_val_every_n_epoch null --trainer.val_check_interval 7",
    "part of an epoch's batches": "--trainer.limit_train_batches 7 --trainer.max_epochs 4",
    "loader with worker processes": "--data noisy.WorkerDigits",
    "a metric of one step of an epoch": "--model noisy.SometimesModule",
    "a schedule that watches the validation": "--model noisy.PlateauModule --trainer.max_epochs 5",
}


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS.keys())
def test_two_kills_change_nothing_in_other_settings(flags, noisy, forked, only_run, same_run, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / noisy.name).write_text(noisy.read_text())
    arguments = ("run", noisy.name, *flags.split())
    outcome = forked(*arguments, cwd=whole)
    assert outcome.status == 0, outcome.output
    assert forked(*arguments, cwd=tmp_path, TRAP="train_batch_start:9:SIGKILL").status == -9
    assert forked(*arguments, cwd=tmp_path, TRAP="train_batch_start:17:SIGTERM").status == 143
    outcome = forked(*arguments, cwd=tmp_path)
    assert outcome.status == 0 and "lacks" not in outcome.output, outcome.output
    same_run(only_run(tmp_path), only_run(whole))


@pytest.mark.parametrize("kept", [None, 0, 20])
def test_metrics_that_were_deleted_or_cut_meanwhile_are_told_once_and_in_the_report(
    kept, noisy, forked, uninterrupted, only_run
):
    assert forked("run", noisy.name, cwd=noisy.parent, TRAP="train_batch_start:17:SIGKILL").status == -9
    run = only_run(noisy.parent)
    file = run / "fit" / "metrics.csv"
    if kept is None:
        file.unlink()
    else:
        file.write_text("".join(file.read_text().splitlines(keepends=True)[: kept + 1]))
    wanted = (uninterrupted / "fit" / "metrics.csv").read_text().splitlines()[1:]
    saved = sum(int(line.partition(",")[0]) <= 16 for line in wanted)
    text = f"metrics.csv lacks {saved - (kept or 0)} of {saved} lines up to step 16"
    again = forked("run", noisy.name, cwd=noisy.parent, TRAP="train_batch_start:21:SIGKILL")
    assert again.output.count(text) == 1
    last = forked("run", noisy.name, cwd=noisy.parent)
    assert last.status == 0 and "lacks" not in last.output
    assert (run / "report.md").read_text().count(text) == 1
    (told,) = json.loads((run / "record.json").read_text())["stages"][0]["statements"]
    assert told.startswith(text)
    assert file.read_text().splitlines()[1:] == [*wanted[: kept or 0], *wanted[saved:]]


def test_fresh_processes_killed_from_outside(noisy, child_environment, parts, uninterrupted, only_run, same_run):
    command = [sys.executable, "-m", "fulgurite", "run", noisy.name]
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            command,
            cwd=noisy.parent,
            env=child_environment(**parts),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not list(noisy.parent.glob("runs/noisy/*/fit/checkpoints/last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.005)
        if number == signal.SIGKILL:
            time.sleep(3)  # somewhere in the start or in the rest of the run
        process.send_signal(number)
        _, printed = process.communicate()
        assert process.returncode in (143, -signal.SIGTERM, -signal.SIGKILL, 0), printed
        assert "Traceback" not in printed
    subprocess.run(command, cwd=noisy.parent, env=child_environment(**parts), check=True, capture_output=True)
    same_run(only_run(noisy.parent), uninterrupted)


def test_the_best_by_a_metric_is_kept_beside_the_last(uninterrupted):
    (best,) = [f for f in (uninterrupted / "fit" / "checkpoints").iterdir() if f.name != "last.ckpt"]
    with (uninterrupted / "fit" / "metrics.csv").open() as file:
        found = [(float(r["value"]), int(r["step"])) for r in csv.DictReader(file) if r["metric"] == "val/accuracy"]
    step = torch.load(best, weights_only=True)["global_step"]
    assert (max(found)[0], step) in found


def test_max_time_stops_in_good_order_and_the_rerun_goes_on(noisy, forked, uninterrupted, only_run, same_run):
    stopped = forked("run", noisy.name, "--max-time", "0.2s", cwd=noisy.parent)
    assert stopped.status == 75, stopped.output
    assert json.loads((only_run(noisy.parent) / "record.json").read_text())["status"] == "stopped"
    assert forked("run", noisy.name, cwd=noisy.parent).status == 0
    same_run(only_run(noisy.parent), uninterrupted)


def test_a_failed_stage_leaves_its_record_and_the_next_run_goes_on(noisy, forked, uninterrupted, only_run, same_run):
    failed = forked("run", noisy.name, cwd=noisy.parent, TRAP="train_batch_start:9:error")
    assert failed.status not in (0, 2)
    run = only_run(noisy.parent)
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "failed"
    assert "RuntimeError: sprung" in record["error"]
    assert "sprung" in (run / "report.md").read_text()
    assert forked("run", noisy.name, cwd=noisy.parent).status == 0
    same_run(only_run(noisy.parent), uninterrupted)
    assert json.loads((run / "record.json").read_text())["error"] is None


def test_a_finished_run_is_skipped_and_new_starts_afresh(noisy, forked):
    short = ("run", noisy.name, "--trainer.max_epochs", "1")
    assert forked(*short, cwd=noisy.parent).status == 0
    again = forked(*short, cwd=noisy.parent)
    assert again.status == 0
    assert "fit: done before, skipped" in again.output
    assert len(list((noisy.parent / "runs/noisy").iterdir())) == 1
    assert forked(*short, "--new", cwd=noisy.parent).status == 0
    assert len(list((noisy.parent / "runs/noisy").iterdir())) == 2


def test_another_process_is_kept_out_of_a_run(noisy, forked, only_run):
    short = ("run", noisy.name, "--trainer.max_epochs", "1")
    assert forked(*short, cwd=noisy.parent, TRAP="train_batch_start:5:SIGKILL").status == -9
    with FileLock(only_run(noisy.parent) / ".lock"):
        second = forked(*short, cwd=noisy.parent)
    assert second.status == 2
    assert "another process is running this experiment" in second.output
    assert "--new" in second.output


def test_a_changed_input_file_means_another_run(tmp_path, noisy, forked):
    (tmp_path / "start.ckpt").write_bytes(b"")
    arguments = ("run", "noisy.yaml", "--trainer.max_epochs", "1", "--data.seed", "7")
    assert forked(*arguments, cwd=tmp_path).status == 0
    (run,) = (tmp_path / "runs/noisy").iterdir()
    staged = tmp_path / "staged.yaml"
    staged.write_text(
        f"stages: [{{name: test, verb: test, experiment: {noisy}, overrides: {{ckpt_path: start.ckpt}}}}]\n",
        encoding="utf-8",
    )
    (tmp_path / "start.ckpt").write_bytes((run / "fit/checkpoints/last.ckpt").read_bytes())
    assert forked("run", "staged.yaml", cwd=tmp_path).status == 0
    assert "skipped" in forked("run", "staged.yaml", cwd=tmp_path).output
    os.utime(tmp_path / "start.ckpt", (1, 1))
    assert "skipped" not in forked("run", "staged.yaml", cwd=tmp_path).output
    assert len(list((tmp_path / "runs/staged").iterdir())) == 2


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    from fulgurite.launch.lightning import AtomicCheckpointIO
    from fulgurite.registry import UserError

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(10)}, path)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit then fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(UserError, match=r"last.ckpt: the checkpoint can't be written"):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_command_line_value_wins_over_a_checkpoint_and_says_so(noisy, forked, only_run):
    fit = ("fit", noisy.name, "--trainer.limit_train_batches", "2", "--trainer.val_check_interval", "1.0")
    first = forked(*fit, "--trainer.max_epochs", "1", "--model.init_args.width", "3", cwd=noisy.parent)
    assert first.status == 0, first.output
    (checkpoint,) = noisy.parent.glob("runs/noisy/fit-*/checkpoints/last.ckpt")
    again = (*fit, "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint))
    filled = forked(*again, cwd=noisy.parent)
    assert filled.status == 0, filled.output  # the width that nobody gave came from the checkpoint: its weights fit
    given = forked(*again, "--model.init_args.width", "5", cwd=noisy.parent)
    assert "model.width: 5 as given, not 3 from the checkpoint" in given.output
    assert "size mismatch" in given.output  # and was taken at its word
