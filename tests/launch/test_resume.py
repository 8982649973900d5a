"""Runs that are cut off go on where they stopped, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CUTS = {
    "mid-epoch, killed": "train_batch_start:6:SIGKILL",
    "mid-epoch, terminated": "train_batch_start:6:SIGTERM",
    "right after a save, killed": "train_batch_start:8:SIGKILL",
    "while a checkpoint is made, killed": "save_checkpoint:8:SIGKILL",
    "before the first save, killed": "train_batch_start:2:SIGKILL",
    "in a validation, killed": "validation_batch_end:10:SIGKILL",
    "in a validation, terminated": "validation_batch_end:10:SIGTERM",
    "step before a validation, terminated": "train_batch_start:9:SIGTERM",
    "at a validation's end, killed": "validation_end:17:SIGKILL",
    "last batch of an epoch, terminated": "train_batch_start:11:SIGTERM",
    "end of an epoch, killed": "train_epoch_end:12:SIGKILL",
    "end of an epoch, terminated": "train_epoch_end:24:SIGTERM",
    "start of an epoch, killed": "train_epoch_start:12:SIGKILL",
    "start of an epoch, terminated": "train_epoch_start:24:SIGTERM",
    "last step, killed": "train_batch_end:36:SIGKILL",
    "in the test, killed": "test_batch_end:0:SIGKILL",
    "in the test, terminated": "test_batch_end:0:SIGTERM",
}


@pytest.mark.parametrize("trap", CUTS.values(), ids=CUTS.keys())
def test_a_cut_run_ends_as_if_it_had_not_been_cut(trap, noisy, forked, uninterrupted, same_run):
    cut = forked("run", noisy.name, cwd=noisy.parent, TRAP=trap)
    assert cut.status == (-9 if trap.endswith("KILL") else 143), cut.output
    again = forked("run", noisy.name, cwd=noisy.parent)
    assert again.status == 0, again.output
    (run,) = (noisy.parent / "runs" / "noisy").iterdir()
    same_run(run, uninterrupted)
    assert json.loads((run / "record.json").read_text())["status"] == "done"
