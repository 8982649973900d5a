"""Fixtures of the whole suite: the command line in a process of its own, and experiments that were run once for all."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium, or a skip; of a module, since its event loop would stop others' in the same process."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install 'fulgurite[dev]')")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync.sync_playwright() as driver:
        if program is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("needs a Chromium: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


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


@dataclass(frozen=True)
class FinishedRun:
    """A run that several tests look at; they leave it as it is.

    Attributes:
        path: its run folder.
        stderr: what it printed there.
    """

    path: Path
    stderr: str


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, child_environment: Callable[..., dict[str, str]]
) -> Callable[[str], FinishedRun]:
    """`finished_run("dnd/smoke")`: `fulgurite run` of it, once for the whole suite, however many processes test."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished_runs"

    def get(name: str) -> FinishedRun:
        home = root / name.replace("/", "_")
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            told = home / "told.json"
            if not told.exists():
                command = [sys.executable, "-m", "fulgurite", "run", name]
                done = subprocess.run(command, cwd=home, env=child_environment(), capture_output=True, text=True)
                told.write_text(json.dumps([done.returncode, done.stderr]), encoding="utf-8")
            status, stderr = json.loads(told.read_text(encoding="utf-8"))
        assert status == 0, stderr[-3000:]
        (path,) = (p for p in (home / "runs" / name).iterdir() if p.is_dir())
        return FinishedRun(path, stderr)

    return get
