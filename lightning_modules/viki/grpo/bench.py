"""`fulgurite bench viki`: what an iteration of GRPO takes, under RLlib and in a bare loop of the same work."""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ....datamodules.files import write_json
from ....datamodules.viki.module import VikiTrajectoryDataModule
from ....registry import COMMANDS, UserError
from ..policy.policy import VikiPolicy
from .record_bank import open_bank, spec_of
from .rollout import load_policy, roll_out, rollout_seed
from .settings import GRPOSettings
from .update import add_gradients

PARTS = ("generate", "reward", "log_probs", "update", "sync", "iteration")
_WARM_UP = 2
Times = list[dict[str, float]]


@COMMANDS.register("bench viki", paper="2506.09049")
def bench(
    run: Callable[..., dict[str, Any]], policy: Path, data: list[Path], iterations: int = 8, prompts: int = 128,
    minibatch_prompts: int = 64, micro_prompts: int = 32, group_size: int = 5, max_new_tokens: int = 256,
    lr: float = 1e-5, json: Path | None = None,
) -> None:  # fmt: skip
    """Completions and tokens a second of GRPO, by parts of an iteration: RLlib in one process beside a bare loop.

    Both sides draw completions of the same prompts of the training split with the same seeds, reward them, take old and
    reference log-probabilities and one optimiser step a minibatch, on the GPU where there is one. The bare side is a
    plain loop over the same functions and knows neither Ray nor Lightning; its network draws and learns, so that there
    are no weights to hand over. Two iterations warm up and are not counted; numbers are medians, with the lowest and
    highest. The first iterations of both draw the same tokens, later ones nearly.

    Args:
        run: runs an experiment; handed in.
        policy: folder of the policy, such as weights/viki-small.
        data: folders of records with train and val.
        iterations: counted iterations of each side.
        prompts: prompts of an iteration.
        minibatch_prompts: prompts of an optimiser step.
        micro_prompts: prompts that go through the network at once.
        group_size: completions of a prompt.
        max_new_tokens: longest completion.
        lr: learning rate; small, so that both sides' answers stay alike.
        json: file for the numbers.

    Raises:
        UserError: for numbers that can't be.
    """
    if iterations < 1:
        raise UserError(f"--iterations {iterations}: at least 1")
    settings = GRPOSettings(
        group_size=group_size, max_new_tokens=max_new_tokens, lr=lr, minibatch_prompts=minibatch_prompts,
        micro_prompts=micro_prompts,
    )  # fmt: skip
    settings.check_prompts(prompts)
    folders = [str(folder) for folder in data]
    module = VikiTrajectoryDataModule(folders, batch_size=prompts, stage="rl")
    sides = {
        "bare loop": _bare(str(policy.resolve()), module, settings, iterations + _WARM_UP),
        "RLlib": _rllib(run, policy.resolve(), folders, prompts, settings, iterations + _WARM_UP),
    }
    counted = {name: times[_WARM_UP:] for name, times in sides.items()}
    ratio = _median(counted["RLlib"], "iteration") / _median(counted["bare loop"], "iteration")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    _show(counted, ratio, device)
    if json is not None:
        content = {"schema_version": 1, "bench": "viki", "device": device, "prompts": prompts, "ratio": ratio}
        write_json(json, {**content, "settings": vars(settings), "seconds": counted})


def _bare(policy_folder: str, data: VikiTrajectoryDataModule, settings: GRPOSettings, iterations: int) -> Times:
    """Seconds of each part of each iteration, and its completions and tokens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = load_policy(policy_folder, data.hparams).to(device)
    reference = VikiPolicy.load(policy_folder).to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    bank, size = open_bank(spec_of(data)), data.hparams["batch_size"]
    found: Times = []
    for first in range(0, iterations * size, size):
        begun = time.perf_counter()
        records = bank.records("train", bank.numbers(range(first, first + size)))
        drawn = roll_out(policy, reference, records, settings, rollout_seed(0, first))
        prompts, learned = [policy.asked.prompt(record) for record in records], time.perf_counter()
        for start in range(0, size, settings.minibatch_prompts):
            optimizer.zero_grad()
            part = prompts[start : start + settings.minibatch_prompts]
            figures = add_gradients(policy, part, drawn, start * settings.group_size, settings)
            torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.grad_clip)
            optimizer.step()
            float(figures["kl"])  # the GPU has finished
        ended = time.perf_counter()
        counts = {"completions": float(len(drawn.texts)), "tokens": float(drawn.mask_GL.sum())}
        found.append({**drawn.seconds, "update": ended - learned, "sync": 0.0, "iteration": ended - begun, **counts})
    return found


def _rllib(
    run: Callable[..., dict[str, Any]], policy: Path, folders: list[str], prompts: int, settings: GRPOSettings,
    iterations: int,
) -> Times:  # fmt: skip
    """The same of the experiment viki/grpo, which RLlib trains in this process."""
    names = ("group_size", "max_new_tokens", "lr", "minibatch_prompts", "micro_prompts")
    given: dict[str, Any] = {f"model.{name}": getattr(settings, name) for name in names}
    given |= {"model.policy": str(policy), "data.data": folders, "data.batch_size": prompts}
    given |= {"rllib.iterations": iterations, "rllib.evaluate_every": 0, "rllib.save_every": iterations}
    with tempfile.TemporaryDirectory() as output:
        folder = Path(run("viki/grpo", output=output, new=True, **given)["run_dir"])
        (file,) = folder.rglob("metrics.csv")
        with file.open(newline="", encoding="utf-8") as rows:
            told: dict[int, dict[str, float]] = {}
            for row in csv.DictReader(rows):
                told.setdefault(int(row["step"]), {})[row["metric"]] = float(row["value"])
    completions = float(prompts * settings.group_size)
    return [
        {
            **{name: one[f"time/{name}_s"] for name in PARTS},
            "completions": completions, "tokens": completions * one["train/tokens_per_completion"],
        }
        for _, one in sorted(told.items())
    ]  # fmt: skip


def _median(times: Times, name: str) -> float:
    return statistics.median(one[name] for one in times)


def _show(counted: dict[str, Times], ratio: float, device: str) -> None:
    table = Table("", *(f"{name} s" for name in PARTS), "completions/s", "tokens/s", title=device)
    for side, times in counted.items():
        cells = []
        for name in PARTS:
            values = [one[name] for one in times]
            cells.append(f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        speeds = [
            statistics.median(one[what] / one["iteration"] for one in times) for what in ("completions", "tokens")
        ]
        table.add_row(side, *cells, *(f"{speed:.0f}" for speed in speeds))
    console = Console(highlight=False, width=200)
    console.print(table)
    console.print(f"an iteration under RLlib takes {ratio:.2f} of the bare loop's time")
