"""A training stream that can be stopped anywhere and taken up again: batch after batch of numbered draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
from torch import Generator, cuda, distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler


class DrawLoader:
    """Loads `dataset[0]`, `dataset[1]`, … in batches: an endless stream of draws, of which an epoch is a window.

    The dataset turns a draw's number into an item by itself (by a generator seeded with `(seed, draw)`, or by
    `Shuffled`), so the loader's whole state is the number of batches it gave. Lightning saves it with the checkpoint.
    In a multi-process run the batches are dealt out in turn: no draw comes twice, and each process gives as many. It
    wraps a torch DataLoader instead of being one, since Lightning puts a sampler of its own into those.

    Args:
        dataset: `dataset[draw]` for any draw >= 0.
        batch_size: draws per batch (of each process).
        num_batches: batches per epoch (of each process).
        collate_fn: as in torch's DataLoader.
        num_workers: worker processes; items do not depend on it.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        num_batches: int,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self._window = _Window(batch_size, num_batches)
        # a generator of its own: making an iterator then draws nothing from the global one, resumed or not
        self._loader: DataLoader[Any] = DataLoader(
            dataset, batch_sampler=self._window, collate_fn=collate_fn, num_workers=num_workers, generator=Generator(),
            pin_memory=cuda.is_available(),  # else the GPU would have to be idle for a batch to come
        )  # fmt: skip

    def __len__(self) -> int:
        return self._window.num_batches

    def __iter__(self) -> Iterator[Any]:
        """Give the next `num_batches` batches."""
        self._window.start = self._window.given
        for batch in self._loader:
            self._window.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Number of batches given so far, over all epochs."""
        return {"batches_given": self._window.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many batches."""
        self._window.given = state["batches_given"]


class _Window(Sampler[list[int]]):
    """Batches of draw numbers from `start` on, an epoch long. A trainer that resumes within an epoch stops earlier."""

    def __init__(self, batch_size: int, num_batches: int) -> None:
        self.size, self.num_batches = batch_size, num_batches
        self.start = self.given = 0

    def __iter__(self) -> Iterator[list[int]]:
        together = distributed.is_available() and distributed.is_initialized()
        rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        for batch in range(self.start, self.start + self.num_batches):
            first = (batch * world_size + rank) * self.size
            yield list(range(first, first + self.size))

    def __len__(self) -> int:
        return self.num_batches


class Shuffled(Dataset[Any]):
    """A finite dataset as a stream of draws: each pass goes through all items in a new order.

    Args:
        items: anything with `len` and integer indexing.
        seed: seed of the orders; the order of pass p is a function of (seed, p) alone.
    """

    def __init__(self, items: Any, seed: int) -> None:
        self.items, self.seed = items, seed
        self._pass, self._order = -1, numpy.arange(0)

    def __getitem__(self, draw: int) -> Any:
        turn, place = divmod(draw, len(self.items))
        if turn != self._pass:
            self._pass, self._order = turn, numpy.random.default_rng((self.seed, turn)).permutation(len(self.items))
        return self.items[int(self._order[place])]


def whole(dataset: Dataset[Any]) -> DistributedSampler[Any]:
    """All items in their order, for a loader of validation or test data: each process of a run evaluates all of them.

    Lightning's own sampler would deal them out and repeat some, so that a metric depends on the number of processes.
    """
    return DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=False)
