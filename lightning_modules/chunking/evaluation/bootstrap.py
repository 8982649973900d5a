"""How sure is a difference between two arms? Questions are drawn again, both arms scored on the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean difference of two arms over the same questions.

    Attributes:
        mean: of the first minus the second.
        low: lower end of the 95 % interval.
        high: its upper end.
        count: questions.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}, n = {self.count})"


def difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Percentile bootstrap of paired questions, 10,000 draws of a fixed seed.

    Raises:
        ValueError: if the two are not scores of the same questions.
    """
    gains = np.asarray(first, float) - np.asarray(second, float) if len(first) == len(second) else None
    if gains is None or not len(gains):
        raise ValueError(f"{len(first)} and {len(second)} scores can't be paired")
    generator = np.random.default_rng(0)
    drawn = np.concatenate(
        [gains[generator.integers(0, len(gains), (500, len(gains)))].mean(1) for _ in range(DRAWS // 500)]
    )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(gains.mean()), float(low), float(high), len(gains))
