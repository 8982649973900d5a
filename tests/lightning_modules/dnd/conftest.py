"""Fixtures of the DnD tests: one finished smoke run, shared by all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fulgurite.datamodules.sources.download import fetch
from fulgurite.registry import UserError


@pytest.fixture(scope="session")
def inflections() -> Path:
    """The source of the word tasks; skips, visibly, where it can't be had."""
    try:
        return fetch("inflections")
    except UserError as error:
        pytest.skip(f"the source 'inflections' is not cached and cannot be fetched: {str(error).splitlines()[0]}")


@pytest.fixture(scope="session")
def smoke_run(
    inflections: Path, tmp_path_factory: pytest.TempPathFactory, child_environment: Callable[..., dict[str, str]]
) -> Path:
    """Run folder of `fulgurite run dnd/smoke`."""
    import subprocess
    import sys

    home = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "fulgurite", "run", "dnd/smoke"]
    done = subprocess.run(command, cwd=home, env=child_environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return next((home / "runs" / "dnd" / "smoke").iterdir())
