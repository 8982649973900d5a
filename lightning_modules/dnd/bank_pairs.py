"""A bank's pairs on the device they are trained on: conditions and snapshots drawn there, nothing copied a step.

Axis legend: B batch, N prompts, L text token, C channel, D dropout draw, P prompt, S snapshot, T weight token,
H rank + 2, W chunk + 2, K training task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from ...datamodules.dnd.module import PromptCheckpointDataModule, TaskTensors
from ...datamodules.dnd.token_batches import align
from .retrieval import summaries


@dataclass
class BankPairs:
    """Training tasks' prompts and snapshots, moved to `device`.

    Attributes:
        data: where they come from; tokenizer and token weights with it.
        device: where they lie.
        canonical: whether all snapshots are put in one coordinate system first.
        keys_KC: each task's prompt summary.
        means_KTHW: each task's mean tokens.
    """

    data: PromptCheckpointDataModule
    device: torch.device
    canonical: bool = False

    def __post_init__(self) -> None:
        data = self.data
        data.setup("fit")
        if self.canonical:
            self._align()
        half = torch.float16 if self.device.type == "cuda" else torch.float32
        self._train = [t.train_DPLC.to(self.device, half) for t in data.tasks]
        self._unseen = [t.held_out_PLC.to(self.device, half) for t in data.tasks]
        self._tokens = [t.tokens_STHW.to(self.device) for t in data.tasks]
        self.token_weight_T = data.token_weight_T.to(self.device)
        self.keys_KC = torch.stack([summaries(s[0][None])[0] for s in self._train])
        self.means_KTHW = torch.stack([t.mean(0) for t in self._tokens])
        self._num_prompts, self._seed = int(data.hparams["num_prompts"]), int(data.hparams["seed"])

    @property
    def tasks(self) -> list[TaskTensors]:
        """The training tasks."""
        return self.data.tasks

    @property
    def condition_shape(self) -> list[int]:
        """[N, L, C]."""
        return [self._num_prompts, *self._train[0].shape[2:]]

    def _align(self) -> None:
        """Put all snapshots in the coordinates of the first task's last one, and weigh their tokens anew."""
        from ...datamodules.dnd.weight_tokens import token_weights

        tokenizer = self.data.tokenizer
        assert tokenizer is not None
        reference = tokenizer.detokenize(self.data.tasks[0].tokens_STHW[-1].to(self.device))
        for task in self.data.tasks:
            turned = (align(tokenizer.detokenize(t.to(self.device)), reference) for t in task.tokens_STHW)
            task.tokens_STHW = torch.stack([tokenizer.tokenize(state).cpu() for state in turned])
        self.data.token_weight_T = token_weights(t.tokens_STHW for t in self.data.tasks)

    def condition(self, task: int, rng: numpy.random.Generator) -> Tensor:
        """N fresh prompts of a task, of one dropout draw: [N, L, C]."""
        states_DPLC = self._train[task]
        chosen = torch.from_numpy(rng.choice(states_DPLC.shape[1], self._num_prompts, replace=False))
        return states_DPLC[int(rng.integers(len(states_DPLC)))][chosen.to(self.device)].float()

    def draw(self, step: int, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """(condition [B, N, L, C], tokens [B, T, H, W], task [B]), a function of (seed, step) alone."""
        rng = numpy.random.default_rng((self._seed, step))
        tasks = rng.integers(len(self._train), size=batch_size).tolist()
        targets = [self._tokens[t][int(rng.integers(len(self._tokens[t])))] for t in tasks]
        conditions = torch.stack([self.condition(t, rng) for t in tasks])
        return conditions, torch.stack(targets), torch.tensor(tasks, device=self.device)

    def conditions(self, step: int, num: int) -> tuple[Tensor, Tensor]:
        """(condition [B, N, L, C], task [B]) of `num` different tasks, a function of (seed, step) alone."""
        rng = numpy.random.default_rng((self._seed, 1, step))
        tasks = rng.permutation(len(self._train))[:num].tolist()
        return torch.stack([self.condition(t, rng) for t in tasks]), torch.tensor(tasks, device=self.device)

    def unseen(self, task: int, draw: int) -> tuple[Tensor, Tensor]:
        """N prompts of a task that training never sees [N, L, C], and its last snapshot's tokens [T, H, W]."""
        rng = numpy.random.default_rng((self._seed, 2, task, draw))
        chosen = torch.from_numpy(rng.choice(len(self._unseen[task]), self._num_prompts, replace=False))
        return self._unseen[task][chosen.to(self.device)].float(), self._tokens[task][-1]
