"""Symbolic tasks without files: what agents play, drawn as `viki generate` draws its records."""

from __future__ import annotations

import functools

from lightning.pytorch import LightningDataModule

from ...registry import DATAMODULES, UserError
from .generator import draw_task
from .problem import Problem


@DATAMODULES.register("viki_tasks", paper="2506.09049")
class VikiTaskDataModule(LightningDataModule):
    """The tasks of the first records of a split, those with so many robots.

    Args:
        team_size: only tasks with so many robots; 0 for all.
        num_records: training records to take tasks from.
        num_val: validation records to take tasks from.
        num_test: test records to take held-out tasks from.
        seed: of the records.
    """

    def __init__(
        self, team_size: int = 2, num_records: int = 1200, num_val: int = 300, num_test: int = 500, seed: int = 0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 <= team_size <= 3 or min(num_records, num_val, num_test) < 1:
            raise UserError("data: team_size is 0 to 3, num_records, num_val and num_test are from 1 on")

    def test_tasks(self) -> tuple[Problem, ...]:
        """The held-out tasks."""
        return problems("test", self.hparams["num_test"], self.hparams["seed"], self.hparams["team_size"])


@functools.lru_cache(maxsize=8)  # each of an env runner's environments asks for the same
def problems(split: str, num_records: int, seed: int, team_size: int = 0) -> tuple[Problem, ...]:
    """Tasks of a split's first records, those with so many robots; all for 0.

    Raises:
        UserError: if none has.
    """
    found = (Problem.read(draw_task(split, index, seed).truth) for index in range(num_records))
    chosen = tuple(problem for problem in found if team_size in (0, len(problem.agents)))
    if not chosen:
        raise UserError(f"none of the first {num_records} records of {split} has {team_size} robots; take more")
    return chosen
