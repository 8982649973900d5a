"""Pairs of prompts and snapshots for training the generator (arXiv 2506.16406).

Axis legend: B batch, N prompts of a condition, L text token, C channel, T weight token, H rank + 2, W chunk + 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, whole
from .conditions import PromptEncoder
from .snapshots import SnapshotStore
from .tasks import load_task
from .weight_tokens import WeightTokenizer, token_weights


@dataclass
class TaskTensors:
    """What one training task contributes: states of its prompt pool and the tokens of its snapshots."""

    name: str
    train_DPLC: Tensor
    held_out_PLC: Tensor
    centroid_C: Tensor
    held_out_embedding_PC: Tensor
    tokens_STHW: Tensor


@DATAMODULES.register("dnd")
class PromptCheckpointDataModule(LightningDataModule):
    """Each item is a uniformly drawn snapshot and a fresh batch of prompts of the same task, drawn without replacement.

    Validation pairs prompts that training never sees with the last snapshot of their task.

    Args:
        store: folder of snapshots (stage collect).
        held_out: tasks of the store that the generator must not see, nor any other LoRA of the same examples;
            `kind:emotion` is every task of a kind.
        encoder: sentence encoder's model name.
        num_prompts: N, prompts per condition.
        prompt_length: L, encoder tokens per prompt.
        prompt_pool: prompts per task to draw from, and as many for validation at most.
        dropout_draws: dropout draws of the encoder to draw from; 0 turns its dropout off.
        chunk: width of a weight token; None takes the widest that fits.
        batch_size: pairs per step.
        num_batches: steps per epoch.
        val_conditions: validation conditions per task.
        single_pair: train on one fixed pair, to see whether the generator can fit at all.
        seed: seed of the draws.
    """

    def __init__(
        self,
        store: str,
        held_out: list[str],
        encoder: str = "minilm-l6",
        num_prompts: int = 32,
        prompt_length: int = 64,
        prompt_pool: int = 256,
        dropout_draws: int = 3,
        chunk: int | None = None,
        batch_size: int = 8,
        num_batches: int = 100,
        val_conditions: int = 4,
        single_pair: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tasks: list[TaskTensors] = []
        self.tokenizer: WeightTokenizer | None = None
        self.token_weight_T = torch.ones(0)

    @property
    def snapshots(self) -> SnapshotStore:
        """The store that the pairs come from."""
        return SnapshotStore(self.hparams["store"])

    def setup(self, stage: str) -> None:
        """Tokenise the snapshots and encode the prompt pools.

        Raises:
            UserError: if no training task is left, a task has fewer prompts than a condition needs, or the chunk
                does not fit.
        """
        if self.tasks:
            return
        p, store = self.hparams, self.snapshots
        entries = store.manifest["tasks"]
        held_out = store.named(p["held_out"])
        unseen = {entries[name]["spec"] for name in held_out}  # other seeds' LoRAs of a task are the task too
        names = [t for t in store.tasks if entries[t]["spec"] not in unseen][: 1 if p["single_pair"] else None]
        if not names:
            raise UserError(f"{store.folder}: every task is held out; nothing is left to train on")
        self.tokenizer = WeightTokenizer.from_adapter(store.load(names[0]), p["chunk"])
        encoder = PromptEncoder(p["encoder"], p["prompt_length"])
        self.tasks = [self._task(store, name, encoder) for name in names]
        self.token_weight_T = token_weights(t.tokens_STHW for t in self.tasks)

    def _task(self, store: SnapshotStore, name: str, encoder: PromptEncoder) -> TaskTensors:
        p, entry = self.hparams, store.manifest["tasks"][name]
        task = load_task(entry["spec"], limit=entry["limit"], seed=entry["seed"])
        pools = [list(dict.fromkeys(e.prompt for e in part))[: p["prompt_pool"]] for part in (task.train, task.val)]
        for pool, split in zip(pools, ("train", "val"), strict=True):
            if len(pool) < p["num_prompts"]:
                raise UserError(
                    f"task {name}: {len(pool)} {split} prompts, a condition needs {p['num_prompts']}\n"
                    "Lower data.num_prompts, or raise the task's limit."
                )
        steps = store.steps(name)[-1:] if p["single_pair"] else store.steps(name)
        assert self.tokenizer is not None
        embeddings = [encoder.embed(pool) for pool in pools]
        return TaskTensors(
            name,
            encoder.encode(pools[0], dropout_draws=0 if p["single_pair"] else p["dropout_draws"], seed=p["seed"]),
            encoder.encode(pools[1])[0],
            torch.nn.functional.normalize(embeddings[0].mean(0), dim=0),
            embeddings[1],
            torch.stack([self._tokens(store.load(name, s), encoder.device) for s in steps]),
        )

    def _tokens(self, state: dict[str, Tensor], device: torch.device) -> Tensor:
        assert self.tokenizer is not None
        return self.tokenizer.tokenize({k: v.to(device) for k, v in state.items()}).cpu()

    def train_dataloader(self) -> DrawLoader:
        """Batches (condition [B, N, L, C], tokens [B, T, H, W], task index [B])."""
        p = self.hparams
        draws = _Pairs(self.tasks, p["num_prompts"], p["seed"], p["single_pair"])
        return DrawLoader(draws, p["batch_size"], p["num_batches"])

    def val_dataloader(self) -> DataLoader[Any]:
        """Fixed conditions of prompts that training never sees, `val_conditions` for each task."""
        p = self.hparams
        pairs = _HeldOutPairs(self.tasks, p["num_prompts"], p["val_conditions"], p["seed"])
        return DataLoader(pairs, p["batch_size"], sampler=whole(pairs))


class _Pairs(Dataset[tuple[Tensor, Tensor, int]]):
    """Draw -> pair, a function of (seed, draw) alone."""

    def __init__(self, tasks: list[TaskTensors], num_prompts: int, seed: int, single: bool) -> None:
        self._tasks, self._num_prompts, self._seed, self._single = tasks, num_prompts, seed, single
        self._snapshots = [(t, s) for t, task in enumerate(tasks) for s in range(len(task.tokens_STHW))]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor, int]:
        rng = numpy.random.default_rng((self._seed, 0 if self._single else draw))
        t, s = self._snapshots[int(rng.integers(len(self._snapshots)))]
        task = self._tasks[t]
        num_draws, pool = task.train_DPLC.shape[:2]
        chosen = torch.from_numpy(rng.choice(pool, self._num_prompts, replace=False))
        return task.train_DPLC[int(rng.integers(num_draws))][chosen], task.tokens_STHW[s], t


class _HeldOutPairs(Dataset[tuple[Tensor, Tensor, int]]):
    """Validation pairs: held-out prompts with the last snapshot of their task."""

    def __init__(self, tasks: list[TaskTensors], num_prompts: int, conditions: int, seed: int) -> None:
        self._tasks, self._num_prompts, self._conditions, self._seed = tasks, num_prompts, conditions, seed

    def __len__(self) -> int:
        return len(self._tasks) * self._conditions

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        t = index // self._conditions
        rng = numpy.random.default_rng((self._seed, 1, index))
        chosen = torch.from_numpy(rng.choice(len(self._tasks[t].held_out_PLC), self._num_prompts, replace=False))
        return self._tasks[t].held_out_PLC[chosen], self._tasks[t].tokens_STHW[-1], t
