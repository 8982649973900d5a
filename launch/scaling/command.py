"""The command: processes for each number of GPUs, and a table."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError
from .work import WORK

SCHEMA_VERSION = 1


@COMMANDS.register("bench scaling")
def scaling(work: str = ",".join(WORK), json: Path | None = None) -> int:
    """Train the same step on one GPU and on all of this machine's: speed, memory, losses.

    Every GPU has a micro-batch of its own size (weak scaling) with random weights; here all have the same inputs, so
    that the losses on several GPUs are those of one, up to rounding. What a step takes longer than on one GPU counts
    as communication. A model that one GPU can't hold is told as such.

    Args:
        work: names with commas: gamecraft (12 million parameters, DDP), large (13 billion, FSDP2, activations
            checkpointed, pictures of 352x640), dnd (the generator for Qwen2.5-0.5B, DDP).
        json: file for the numbers.

    Raises:
        UserError: for an unknown name, or without GPUs.
    """
    names = [name.strip() for name in work.split(",") if name.strip()]
    if unknown := [name for name in names if name not in WORK]:
        raise UserError(f"--work {unknown[0]}: one of {', '.join(WORK)}")
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise UserError("bench scaling trains on GPUs: PyTorch sees none here")
    console = Console(highlight=False, soft_wrap=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        console.print(WORK[name].title)
        one: dict[str, Any] | None = None
        for ranks in sorted({1, count}):
            row = {"work": name, "ranks": ranks, **_measured(name, ranks)}
            one = row if ranks == 1 else one
            if "step_s" in row:
                row |= _against(row, one)
                row["share_of_peak"] = _share_of_peak(name, row)
            rows.append(row)
            console.print("  " + told(row), markup=False)
    if json:
        write_json(
            json,
            {"schema_version": SCHEMA_VERSION, "bench": "scaling", "device": torch.cuda.get_device_name(),
             "torch": torch.__version__, "rows": rows},
        )  # fmt: skip
    return 0


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    gpus = f"{row['ranks']} GPU" + ("s" if row["ranks"] > 1 else "")
    if "failed" in row:
        return f"{gpus}: did not run: {row['failed']}"
    speed = row["samples"] * row["ranks"] / row["step_s"]
    line = f"{gpus}: {speed:.2f} samples/s, {row['step_s'] * 1e3:.1f} ms a step, {row['peak_gb']:.1f} GB at most"
    if row.get("share_of_peak") is not None:
        line += f", {row['share_of_peak']:.0%} of the bf16 peak"
    if row.get("times") is not None:
        line += f"; {row['times']:.2f} times one GPU, communication {row['communication']:.1%} of a step"
        line += f", losses apart by {row['loss_distance']:.1e}"
    return line


def _against(row: dict[str, Any], one: dict[str, Any] | None) -> dict[str, Any]:
    """Speed, communication and losses beside one GPU's; nothing where that did not run."""
    if one is None or "step_s" not in one or one is row:
        return {}
    apart = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(row["losses"], one["losses"], strict=True))
    return {
        "times": row["ranks"] * one["step_s"] / row["step_s"],
        "communication": max(0.0, 1 - one["step_s"] / row["step_s"]),
        "loss_distance": apart,
    }


def _measured(name: str, ranks: int) -> dict[str, Any]:
    """What processes measured, or why they did not."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.multiprocessing.spawn(run_rank, (ranks, name, folder), nprocs=ranks)
        except torch.multiprocessing.ProcessRaisedException as error:
            last = str(error).strip().splitlines()[-1]
            return {"failed": "out of memory" if "OutOfMemory" in last or "out of memory" in last else last[:200]}
        except torch.multiprocessing.ProcessExitedException as error:
            return {"failed": f"a process ended without a word: {error}"[:200]}
        found: dict[str, Any] = torch.load(Path(folder) / "measured.pt")
    return found


def run_rank(rank: int, ranks: int, name: str, folder: str) -> None:
    """One GPU's process."""
    import torch

    from .process import measure

    found = measure(WORK[name], rank, ranks, torch.device("cuda", rank), f"file://{folder}/meeting")
    if rank == 0:
        torch.save(asdict(found), Path(folder) / "measured.pt")


def _share_of_peak(name: str, row: dict[str, Any]) -> float | None:
    """Operations of a step, counted without memory, over what the card could do in its time; None for unknown cards."""
    import torch

    from ..plan.cards import CARDS
    from ..plan.count import count

    device = torch.cuda.get_device_name().lower()
    card = next((card for key, card in CARDS.items() if key in device), None)
    if card is None:
        return None
    _, counted = count(WORK[name].planner(), lambda p: torch.optim.AdamW(p, lr=1e-3), "bf16-mixed")
    return counted.step_flops / row["step_s"] / (card.bf16 * 1e12)
