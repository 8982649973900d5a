"""What a worker of Ray Train does: one stage of a run, with the trainer's parts that Ray needs. Imports Ray."""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import UserError
from ..config.experiment import Stage
from ..stages.run_folder import code_digest

STOP_FILE = ".stop"
WORD_FILE = ".ray-word"
PEER_LOST = "another worker was lost"
MISTAKE, MISTAKE_ENDS = "[[a mistake: ", "[[its end]]"  # around its words, in an error's text


@dataclass(frozen=True)
class Work:
    """A stage as it is sent to the workers.

    Args:
        stage: with placeholders already filled in.
        folder: of the stage, an absolute path that all machines see.
        stop_at: `time.time()` at which to stop, or None.
        wandb: where to log to W&B, or None.
        cwd: where the run was started; relative paths in settings count from there.
        code: digest of the package's source text.
        word: that the driver has written into the folder's WORD_FILE.
    """

    stage: Stage
    folder: Path
    stop_at: float | None
    wandb: dict[str, Any] | None
    cwd: str
    code: str
    word: str


def work(order: dict[str, Work]) -> str:
    """Run the stage in this worker; returns the state it ended in.

    Raises:
        RuntimeError: any error, in words, so that Ray ends the other workers too, which may wait for this one.
    """
    import ray.train

    given = order["work"]
    try:
        _check_machine(given)
        return _run(given, ray.train.get_context().get_world_rank())
    except UserError as error:
        raise RuntimeError(f"{MISTAKE}{error}{MISTAKE_ENDS}") from None
    except Exception as error:
        told = traceback.format_exc(limit=-8)
        raise RuntimeError(f"{PEER_LOST}\n{told}" if _is_of_a_peer(error) else told) from None


def mistake_in(text: str) -> str:
    """The words of a user's mistake that a worker has found, out of its error's text; empty if it tells of none."""
    return text.partition(MISTAKE)[2].partition(MISTAKE_ENDS)[0]


def _is_of_a_peer(error: Exception) -> bool:
    """Whether another worker's end shows in this one: the processes of a fit fail in what they do together."""
    import torch

    networks = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(error, torch.distributed.DistError) or any(n in str(error).lower() for n in networks)


def _check_machine(given: Work) -> None:
    """Refuse a machine that lacks the run's folder, or that has other source text.

    Raises:
        UserError: with what to do.
    """
    word = given.folder / WORD_FILE  # a folder of this machine's own may have the same path
    if not os.path.isdir(given.cwd) or not word.is_file() or word.read_text(encoding="utf-8") != given.word:
        raise UserError(
            f"{os.uname().nodename}: this machine does not see the run's folder {given.folder.parent}\n"
            "All machines of the cluster have to see the run's folder: start from shared storage, with --output there."
        )
    os.chdir(given.cwd)
    if code_digest() != given.code:
        raise UserError(
            f"{os.uname().nodename}: this machine has another version of fulgurite\n"
            "Install the same one on every machine."
        )


def _run(given: Work, rank: int) -> str:
    from ..records.notes import noting

    with noting(given.folder) if rank == 0 else contextlib.nullcontext():
        return _run_noted(given, rank)


def _run_noted(given: Work, rank: int) -> str:
    from ..place import Place
    from ..stages.lightning_stage import run_lightning_stage
    from ..stages.runner import run_command
    from .ray_strategies import place_in_worker

    if given.stage.verb == "command":
        run_command(given.stage, given.stage.settings, given.folder, given.wandb)
        return "done"
    place = Place(rank, place_in_worker, (given.folder / STOP_FILE).exists, disbands=False)
    wandb = given.wandb if rank == 0 else None
    return run_lightning_stage(given.stage.verb, given.stage.settings, given.folder, given.stop_at, wandb, place)
