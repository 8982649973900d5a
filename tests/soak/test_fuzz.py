"""Fuzzing of what is read from others, by hypothesis and by atheris: tagged text, PDFs, models' answers; minutes each.

FUZZ_SECONDS in the environment is the time of each, 600 by default.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

HERE = Path(__file__).with_name("fuzz_targets.py")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "600"))
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=8)


def _targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_targets", HERE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


targets = _targets()


def _changed(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    held = bytearray(data)
    for place, new in changes:
        place %= max(len(held), 1)
        held[place : place + len(new)] = new
    return bytes(held)


def _hypothesis(name: str, number: int, examples: int) -> None:
    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(targets.seeds(name)), CHANGES)
    def run(data: bytes, changes: list[tuple[int, bytes]]) -> None:
        targets.TARGETS[name](_changed(data, changes))

    run()


def _atheris(name: str, environment: dict[str, str], *flags: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install 'fulgurite[dev]' on Linux")
    command = [sys.executable, str(HERE), name, *flags, "-print_final_stats=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_fixed_part_of_it(name: str, child_environment: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    _hypothesis(name, 0, 60)
    _atheris(name, child_environment(), "-runs=200", "-seed=1", "-rss_limit_mb=6144", f"-artifact_prefix={tmp_path}/")


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_by_hypothesis(name: str) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        number = random.SystemRandom().randrange(1 << 32)
        print(f"hypothesis seed {number}")
        _hypothesis(name, number, 200)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_by_atheris(name: str, child_environment: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    _atheris(
        name,
        child_environment(),
        f"-max_total_time={SECONDS}",
        "-timeout=60",
        "-rss_limit_mb=6144",
        f"-artifact_prefix={tmp_path}/",
    )
