"""Text of several tasks, one after the other, for collecting one LoRA per task in a single fit."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, Shuffled
from ..sources.models import resolve_model
from .examples import Example, Task
from .tasks import load_task
from .text import CHATML, CHATML_END, TextFormat, collate


@DATAMODULES.register("dnd_tasks")
class TaskSequenceDataModule(LightningDataModule):
    """Batches of task 0 for `steps_per_task` steps, then of task 1, and so on.

    Args:
        tasks: task specs (`fulgurite dnd tasks` lists them): names, `jsonl:FILE`, `hf:ID`, ….
        base_model: model name; its tokenizer is used.
        batch_size: examples per step.
        steps_per_task: optimiser steps for each task.
        limit: at most so many examples of each split; None takes all.
        max_length: text tokens per example.
        template: chat format with `{prompt}` in it; empty takes the tokenizer's own chat template.
        end: what ends an answer.
        seed: seed of splits' limits and of the order.
    """

    def __init__(
        self,
        tasks: list[str],
        base_model: str,
        batch_size: int = 4,
        steps_per_task: int = 40,
        limit: int | None = None,
        max_length: int = 256,
        template: str = CHATML,
        end: str = CHATML_END,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(set(tasks)) < len(tasks) or not tasks:
            raise UserError("data.tasks: name at least one task, each once")
        self.save_hyperparameters()
        self.text = TextFormat(template, end)
        self.tasks: list[Task] = []
        self.tokenizer: Any = None

    def prepare_data(self) -> None:
        """Fetch what the tasks and the tokenizer need, once per node."""
        resolve_model(self.hparams["base_model"])
        for spec in self.hparams["tasks"]:
            load_task(spec, limit=1)

    def setup(self, stage: str) -> None:
        """Load tasks and tokenizer.

        Raises:
            UserError: for an unknown task, or a chat format that is not the base model's.
        """
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(resolve_model(self.hparams["base_model"]))
        self.text.end_id(self.tokenizer)
        self.tasks = [
            load_task(t, limit=self.hparams["limit"], seed=self.hparams["seed"]) for t in self.hparams["tasks"]
        ]

    def train_dataloader(self) -> DrawLoader:
        """Batches {input_ids [B, T], labels [B, T], task: index}."""
        p = self.hparams
        draws = _TaskDraws(self.tasks, p["batch_size"], p["steps_per_task"], p["seed"])
        return DrawLoader(draws, p["batch_size"], len(self.tasks) * p["steps_per_task"], collate_fn=self._collate)

    def _collate(self, items: list[tuple[int, Example]]) -> dict[str, Any]:
        batch = collate(self.tokenizer, self.text, [e for _, e in items], self.hparams["max_length"])
        return {**batch, "task": items[0][0]}


class _TaskDraws(Dataset[tuple[int, Example]]):
    """Draw -> (task index, example): a task's draws come together, each pass over its examples in a new order."""

    def __init__(self, tasks: list[Task], batch_size: int, steps_per_task: int, seed: int) -> None:
        self._streams = [Shuffled(t.train, seed) for t in tasks]
        self._per_task = batch_size * steps_per_task

    def __getitem__(self, draw: int) -> tuple[int, Example]:
        task, place = divmod(draw, self._per_task)
        return task % len(self._streams), self._streams[task % len(self._streams)][place]
