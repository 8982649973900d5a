"""Processes that record batches of units, and are watched: one that hangs is killed and its batch begun again.

A batch becomes one shard, which is whole or absent, so that beginning it again repeats no episode.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Protocol

from ...registry import UserError
from .units import Unit

SILENCE_S = 120.0
"""How long a process may go without a new unit or episode; one takes a second or two."""
MOST_STARTS = 3
"""How often a batch is begun before the recording gives up."""
_FAREWELL_S = 10.0  # to finish the shard at hand when the recording ends early
_SPAWN = multiprocessing.get_context("spawn")


class BatchRecorder(Protocol):
    """What a process does its work with; made inside it, with its name."""

    def record(self, batch: list[Unit]) -> Iterator[tuple[Unit, int]]:
        """Record a batch: each unit as it begins, with 0, and again with every episode's frames."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class ProcessLost(Exception):
    """A recording process ended by itself in the midst of a batch."""


class WatchedProcesses:
    """A few processes that record batches.

    Args:
        make: makes the recorder inside a process, from the process's name; can be pickled.
        number: how many processes.
        silence_s: how long one may give nothing before it counts as hung, seconds.

    Attributes:
        hangs: how many were killed for it.
    """

    def __init__(self, make: Callable[[str], BatchRecorder], number: int, silence_s: float = SILENCE_S) -> None:
        self._make, self._number, self._silence_s = make, number, silence_s
        self.hangs = 0

    def record(self, batches: list[list[Unit]]) -> Iterator[int]:
        """Record all batches; gives the frames of each episode as it is made, and takes those of a hung batch back.

        Raises:
            UserError: if a batch hangs every time; names the map and the seed.
            ProcessLost: if a process ends in the midst of its work.
            Exception: what recording raised, such as OSError for a full disk; the others finish their shards first.
        """
        left = deque((batch, 1) for batch in batches)
        idle = [_Process(self._make, f"w{n:02d}") for n in range(min(self._number, len(batches)))]
        busy: dict[Connection, _Process] = {}
        try:
            while left or busy:
                while left and idle:
                    process = idle.pop()
                    process.begin(*left.popleft())
                    busy[process.connection] = process
                silent_from = min(process.heard for process in busy.values())
                heard = wait(list(busy), max(0.0, silent_from + self._silence_s - time.monotonic()))
                for connection in [c for c in busy if c in heard]:
                    frames = busy[connection].hear()
                    if frames is None:
                        idle.append(busy.pop(connection))
                    elif frames:
                        yield frames
                for process in [p for p in busy.values() if time.monotonic() - p.heard > self._silence_s]:
                    del busy[process.connection]
                    idle.append(self._replace(process))
                    left.append((process.batch, process.starts + 1))
                    yield -process.frames
        finally:
            processes = [*idle, *busy.values()]
            for process in processes:
                process.dismiss()
            end = time.monotonic() + _FAREWELL_S
            for process in processes:
                process.end(end - time.monotonic())

    def _replace(self, process: _Process) -> _Process:
        """Kill a process that hangs, and start another of its name.

        Raises:
            UserError: if its batch was begun often enough.
        """
        process.end(0)
        self.hangs += 1
        unit = process.unit
        what = f"recording {unit.game} {unit.map} (part {unit.split}, unit {unit.index}, seed {unit.seed}) gave nothing"
        if process.starts >= MOST_STARTS:
            raise UserError(
                f"{what} for {self._silence_s:.0f} s, {MOST_STARTS} times in fresh processes\n"
                "What was recorded stands in whole shards. The same command tries again; --maps can leave the map out."
            )
        print(
            f"{what} for {self._silence_s:.0f} s: killed, and begun again ({process.starts + 1} of {MOST_STARTS})",
            file=sys.stderr,
            flush=True,
        )
        return _Process(self._make, process.name)


class _Process:
    """One process, seen from the recorder's side."""

    def __init__(self, make: Callable[[str], BatchRecorder], name: str) -> None:
        self.name = name
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(partial(make, name), theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is the end of the pipe

    def begin(self, batch: list[Unit], starts: int) -> None:
        self.batch, self.starts, self.unit, self.frames, self.heard = batch, starts, batch[0], 0, time.monotonic()
        with contextlib.suppress(OSError):  # it is gone, and `hear` says so
            self.connection.send(batch)

    def hear(self) -> int | None:
        """Take its message: frames made, or None when its batch is done."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(_FAREWELL_S)
            raise ProcessLost(_ending(self._process.exitcode)) from None
        self.heard = time.monotonic()
        if isinstance(message, BaseException):
            raise message
        if message is None:
            return None
        self.unit, frames = message
        self.frames += frames
        return int(frames)

    def dismiss(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)

    def end(self, within_s: float) -> None:
        """Wait for it to end by itself, then kill it; its engine goes with it."""
        self._process.join(max(0.0, within_s))
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(make: Callable[[], BatchRecorder], connection: Connection) -> None:
    """A process's life: batches until None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the recorder too, which says when to end
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.closing(make()) as recorder:
        while (batch := connection.recv()) is not None:
            try:
                for news in recorder.record(batch):
                    connection.send(news)
            except Exception as error:
                connection.send(_portable(error))
            else:
                connection.send(None)


def _portable(error: Exception) -> Exception:
    """An error as it can travel: with where it came from, and as text if it can't be pickled."""
    trace = traceback.format_exc()
    error.__traceback__ = error.__context__ = error.__cause__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(trace)
    return error


def _ending(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code == -signal.SIGKILL:
        return "was killed, perhaps for want of memory (fewer --workers need less)"
    if exit_code is not None and exit_code < 0:
        return f"fell by {signal.Signals(-exit_code).name}, as an engine does that is broken or not whole"
    return f"ended by itself, with status {exit_code}"


def _end_with_parent() -> None:
    """A killed recorder's processes end too, rather than wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
