"""A process of a fit that somebody else has started: Ray Train, torchrun or srun. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """What a stage has to know of the process that it runs in.

    Args:
        rank: of the process among those of the fit; the first one, 0, writes the files.
        change: puts strategy, plugins and numbers of devices and nodes into the trainer's arguments.
        asked: tells whether the fit is to save and stop.
        disbands: whether the group of processes ends with the stage.
    """

    rank: int
    change: Callable[[dict[str, Any]], None]
    asked: Callable[[], bool]
    disbands: bool = True
