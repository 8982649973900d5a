"""SIGTERM ends a run where it strikes, but never in the middle of an import."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

import pytest

from fulgurite.launch.stages.termination import EXIT_STATUS, Termination, is_stop, stop_of

SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
    whole = True
except BaseException:
    whole = False
"""


def test_it_strikes_at_once_outside_an_import():
    with pytest.raises(SystemExit) as stop, Termination():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == EXIT_STATUS


def test_an_import_is_finished_first(tmp_path, monkeypatch):
    (tmp_path / "swallows_every_exception.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit) as stop, Termination():
        assert importlib.import_module("swallows_every_exception").whole
        time.sleep(10)
        pytest.fail("the signal was lost")
    assert stop.value.code == EXIT_STATUS
    del sys.modules["swallows_every_exception"]


def test_an_error_on_top_of_a_stop_is_a_stop():
    try:
        try:
            raise SystemExit(EXIT_STATUS)
        except SystemExit:
            raise KeyError("no loader yet")  # noqa: B904  (as jsonargparse does)
    except KeyError as error:
        assert is_stop(error) and isinstance(stop_of(error), SystemExit)
    assert not is_stop(KeyError("by itself")) and not is_stop(SystemExit(2))
