"""`fulgurite bench scaling`: the same step on one process and on two, in DDP and in FSDP2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fulgurite.launch.plan.count import _no_initialisation
from fulgurite.launch.scaling.command import _against, scaling, told
from fulgurite.launch.scaling.process import Measured, measure
from fulgurite.launch.scaling.work import WORK, Work
from fulgurite.registry import UserError

SMALL = Work("tiny", "gamecraft/tiny", "teacher", ("--teacher.data.batch_size", "1"))


def _rank(rank: int, ranks: int, sharded: bool, folder: str) -> None:
    torch.set_num_threads(1)
    work = dataclasses.replace(SMALL, sharded=sharded)
    found = measure(work, rank, ranks, torch.device("cpu"), f"file://{folder}/meeting{ranks}{sharded}")
    if rank == 0:
        torch.save(dataclasses.asdict(found), f"{folder}/{ranks}{sharded}.pt")


def _on(ranks: int, sharded: bool, folder: Path) -> Measured:
    torch.multiprocessing.spawn(_rank, (ranks, sharded, str(folder)), nprocs=ranks)
    return Measured(**torch.load(folder / f"{ranks}{sharded}.pt"))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    one, two, parts = _on(1, False, tmp_path), _on(2, False, tmp_path), _on(2, True, tmp_path)
    assert one.losses[-1] != one.losses[0]
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    assert parts.losses == pytest.approx(one.losses, rel=1e-4)
    assert one.parameters == two.parameters == parts.parameters > 100_000
    assert one.step_s > 0


def test_work_is_of_experiments_that_there_are_and_the_large_one_fits_no_gpu() -> None:
    pytest.importorskip("diffusers")
    sizes = {}
    for name, work in WORK.items():
        make = work.planner()
        with FakeTensorMode(allow_non_fake_inputs=True), _no_initialisation():  # shapes without memory
            planned = make()
        assert planned.trains, work.title
        assert bool(planned.blocks) == work.sharded
        sizes[name] = sum(p.numel() for p in planned.network.parameters())
    assert 1.0e9 < sizes["dnd"] < 1.2e9
    assert 16 * sizes["large"] > 150e9  # bytes of weights, gradients and two moments in float32


def test_a_line_says_what_was_gained_and_what_did_not_run() -> None:
    one: dict[str, Any] = {"ranks": 1, "samples": 4, "step_s": 0.1, "peak_gb": 3.0, "losses": (1.0, 0.5)}
    two: dict[str, Any] = {**one, "ranks": 2, "step_s": 0.104, "losses": (1.0, 0.5005)}
    two |= _against(two, one)
    assert told(two) == (
        "2 GPUs: 76.92 samples/s, 104.0 ms a step, 3.0 GB at most; 1.92 times one GPU, communication 3.8% of a step, "
        "losses apart by 1.0e-03"
    )
    assert _against(one, one) == {}
    assert told({"ranks": 1, "failed": "out of memory"}) == "1 GPU: did not run: out of memory"


def test_an_unknown_work_and_a_machine_without_gpus_are_refused() -> None:
    with pytest.raises(UserError, match="--work viki: one of gamecraft, large, dnd"):
        scaling(work="viki")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="PyTorch sees none here"):
            scaling()
