"""A training stream that can be stopped anywhere and taken up again: batch after batch of numbered draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler


class DrawLoader(DataLoader[Any]):
    """Loads `dataset[0]`, `dataset[1]`, … in batches: an endless stream of draws, of which an epoch is a window.

    The dataset turns a draw's number into an item by itself (by a generator seeded with `(seed, draw)`, or by
    `Shuffled`), so the loader's whole state is the number of batches it gave. Lightning saves it with the checkpoint.

    Args:
        dataset: `dataset[draw]` for any draw >= 0.
        batch_size: draws per batch.
        num_batches: batches per epoch.
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
        self._window = _Window(batch_size, num_batches)
        # a generator of its own: making an iterator then draws nothing from the global one, resumed or not
        super().__init__(
            dataset, batch_sampler=self._window, collate_fn=collate_fn, num_workers=num_workers, generator=Generator()
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Give the rest of the current window."""
        self._window.start = self._window.given
        for batch in super().__iter__():
            self._window.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Number of batches given so far, over all epochs."""
        return {"batches_given": self._window.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many batches."""
        self._window.given = state["batches_given"]


class _Window(Sampler[list[int]]):
    """Batches of draw numbers from `start` to the end of the epoch that it lies in."""

    def __init__(self, batch_size: int, num_batches: int) -> None:
        self.size, self.num_batches = batch_size, num_batches
        self.start = self.given = 0

    def __iter__(self) -> Iterator[list[int]]:
        end = (self.start // self.num_batches + 1) * self.num_batches
        for batch in range(self.start, end):
            yield list(range(batch * self.size, (batch + 1) * self.size))

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
