"""Fixtures of the DnD tests: one finished smoke run, shared by all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def smoke_run(inflections: Path, finished_run: Callable[[str], Any]) -> Path:
    """Run folder of `fulgurite run dnd/smoke`; leave it as it is."""
    path: Path = finished_run("dnd/smoke").path
    return path
