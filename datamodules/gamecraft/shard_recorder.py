"""One process's part of a recording: its engine, its writers, and batches of units that become one shard each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .actions import DEFAULT_LIMITS
from .counterfactual import record_answers
from .doom import VIEW_HEIGHT, DoomEngine
from .episode import Episode
from .miniworld import MiniWorldEngine, record_rooms
from .shards import ShardWriter
from .synthetic import record_flights, view_height_of
from .units import Unit
from .walks import record_walks


class ShardRecorder:
    """What one process keeps between batches: an engine and the splits' writers.

    Args:
        out: folder of the data.
        height: rows of the frames.
        width: columns of the frames.
        name: of the process, and so of its shards.
    """

    def __init__(self, out: Path, height: int, width: int, name: str) -> None:
        self.out, self.height, self.width, self.name = out, height, width, name
        self._writers: dict[str, ShardWriter] = {}
        self._engine: DoomEngine | None = None
        self._rooms: MiniWorldEngine | None = None
        self._engine_options: dict[str, Any] = {}

    def record(self, batch: list[Unit]) -> Iterator[tuple[Unit, int]]:
        """Record units of one split into one shard: each as it begins, with 0, and again with each episode's frames.

        Raises:
            OSError: such as a full disk; the whole episodes before it are kept.
        """
        split = batch[0].split
        if split not in self._writers:
            self._writers[split] = ShardWriter(
                self.out / split, shard_size_mb=2**20, name=self.name, unit_scale=DEFAULT_LIMITS.unit_scale
            )
        existing = self._writers[split].existing_keys()
        rejected: Counter[str] = Counter()
        with self._writers[split] as writer:  # closes the shard; a writer may be entered again
            for unit in batch:
                yield unit, 0
                for episode in self._episodes(unit, rejected):
                    if episode.key not in existing:
                        writer.write(episode)
                        yield unit, len(episode.frames)
        if rejected:
            writer.add_rejections(rejected)

    def _episodes(self, unit: Unit, rejected: Counter[str]) -> Iterator[Episode]:
        if unit.game == "miniworld":
            if self._rooms is None:
                self._rooms = MiniWorldEngine(height=self.height, width=self.width)
            return record_rooms(self._rooms, unit, rejected)
        flying = unit.kind == "synthetic"
        engine = self._engine_for(
            game=unit.game,
            flying=flying,
            view_height=view_height_of(unit) if flying else VIEW_HEIGHT,
            monsters=unit.monsters,
        )
        by_kind = {"recorded": record_walks, "synthetic": record_flights, "counterfactual": record_answers}
        return by_kind[unit.kind](engine, unit, rejected)

    def _engine_for(self, **options: Any) -> DoomEngine:
        if self._engine is None or options != self._engine_options:
            self.close()
            self._engine = DoomEngine(height=self.height, width=self.width, **options)
            self._engine_options = options
        return self._engine

    def close(self) -> None:
        """End the engines."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._rooms is not None:
            self._rooms.close()
            self._rooms = None
