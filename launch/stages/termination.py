"""SIGTERM (a cluster's or a user's polite kill) ends a run in good order, whatever it is doing."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGTERM
AGAIN_S = 0.05


class Termination:
    """While entered, SIGTERM raises SystemExit(143) where it strikes. Inside a Lightning loop, which puts its own
    handler over this one to finish and save the batch at hand first, it is only remembered. Inside an import it comes
    again a little later: an exception there would leave a module half made, and some libraries swallow it. In a job of
    SLURM, which warns of its end by SIGUSR1 or SIGUSR2, these do the same.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
            if "SLURM_JOB_ID" in os.environ:
                for number in (signal.SIGUSR1, signal.SIGUSR2):
                    signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def check(self) -> None:
        """Leave, if SIGTERM came too late for Lightning to act on it.

        Raises:
            SystemExit: with status 143.
        """
        if self._asked:
            raise SystemExit(EXIT_STATUS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()
            return
        self._asked = True
        if signal.getsignal(signal.SIGTERM) == self._handle:
            raise SystemExit(EXIT_STATUS)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def stop_of(error: BaseException | None) -> BaseException | None:
    """What told the run to stop (Ctrl-C, SIGTERM), if that is what ends it; None for one that failed.

    A library may meet it with an error of its own (jsonargparse does, where its handlers look a loader up that it has
    not made yet), so what an error was raised on top of counts too.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == EXIT_STATUS):
            return error
        error = error.__cause__ or error.__context__
    return None


def is_stop(error: BaseException) -> bool:
    """Whether this ends a run that was told to stop rather than one that failed."""
    return stop_of(error) is not None
