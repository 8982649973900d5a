"""Batches of records of like length, so that little of them is padding."""

from __future__ import annotations

from typing import Any

import numpy
from torch.utils.data import Dataset

from ..draws import Shuffled


class AlikeInLength(Dataset[Any]):
    """A stream of draws in which those of a batch are of like length.

    The draws of `window` batches are sorted by length and cut into batches, which come in a drawn order. Draw k is a
    function of the stream and k alone, and each draw of the stream comes once.

    Args:
        draws: the stream.
        lengths: the same stream of lengths.
        batch_size: draws a batch.
        window: batches whose draws are sorted together.
    """

    def __init__(self, draws: Dataset[Any], lengths: Shuffled, batch_size: int, window: int) -> None:
        self._draws, self._lengths, self._batch_size, self._window = draws, lengths, batch_size, window
        self._number, self._order = -1, numpy.arange(0)

    def __getitem__(self, draw: int) -> Any:
        size = self._batch_size * self._window
        number, place = divmod(draw, size)
        if number != self._number:
            lengths = [self._lengths[number * size + k] for k in range(size)]
            batches = numpy.argsort(lengths, kind="stable").reshape(self._window, self._batch_size)
            shuffle = numpy.random.default_rng((self._lengths.seed, number)).permutation(self._window)
            self._number, self._order = number, batches[shuffle].reshape(-1)
        return self._draws[number * size + int(self._order[place])]
