"""Fixtures of the whole suite: the command line in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

import fulgurite

Finished = subprocess.CompletedProcess[str]

# started in the background of a shell, the suite and all its children would ignore Ctrl-C, which some tests send
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("fulgurite", deadline=None)  # a busy machine's pause is no failure
hypothesis.settings.load_profile("fulgurite")


@pytest.fixture(scope="session")
def pdf() -> ModuleType:
    """`pdf.Sheet` and `pdf.write_pdf`: PDFs written by hand."""
    spec = importlib.util.spec_from_file_location("pdf_pages", Path(__file__).with_name("pdf_pages.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def child_environment() -> Callable[..., dict[str, str]]:
    """Makes a child's environment: `fulgurite` importable from any folder, one thread, and `extra` on top."""
    above = Path(fulgurite.__file__).parent.parent

    def make(**extra: str) -> dict[str, str]:
        dropped = ("TRAP", "COLUMNS", "FULGURITE_JOIN", "PYTHONPATH", "WANDB_SERVICE")  # the last is this process's own
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        roots = [
            extra.pop("PYTHONPATH", ""),
            str(above) if (above / "fulgurite").exists() else "",
            os.environ.get("PYTHONPATH", ""),
        ]
        return {**kept, "PYTHONPATH": os.pathsep.join(r for r in roots if r), "OMP_NUM_THREADS": "1", **extra}

    return make


@pytest.fixture
def fulgurite_process(tmp_path: Path, child_environment: Callable[..., dict[str, str]]) -> Callable[..., Finished]:
    """`fulgurite_process("run", "hello", cwd=…, env={…})`: a fresh process; its status, stdout and stderr."""

    def call(
        *arguments: str, cwd: Path = tmp_path, timeout_s: float = 240, env: dict[str, str] | None = None
    ) -> Finished:
        command = [sys.executable, "-m", "fulgurite", *arguments]
        environment = child_environment(**(env or {}))
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s)

    return call
