"""Progress of evaluations: a bar in a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
EVERY_S = 10.0


class Lines:
    """Prints a line of progress, if the last one is some seconds old.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, float("-inf")

    def __call__(self, text: str) -> None:
        """Print it, or leave it out."""
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._console.print(f"  {text}", highlight=False, soft_wrap=True, markup=False)
            self._last = now


def told(items: Sequence[T], title: str, console: Console) -> Iterator[T]:
    """The items, with a bar in a terminal, else with a line as one begins.

    Args:
        items: what is worked on.
        title: what they are.
        console: where to.
    """
    if console.is_terminal:
        yield from track(items, title, console=console)
        return
    lines = Lines(console)
    for number, item in enumerate(items, 1):
        lines(f"{title}: {number} of {len(items)}")
        yield item
