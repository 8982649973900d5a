"""Where the cache is, what it says it holds, and that cleaning deletes that and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.sources import cache
from fulgurite.datamodules.sources.download import fetch
from fulgurite.registry import UserError


def test_the_environment_decides_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "a"))
    assert cache.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("FULGURITE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.cache_dir() == tmp_path / "x" / "fulgurite"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_dir() == Path.home() / "Library" / "Caches" / "fulgurite"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "w"))
    assert cache.cache_dir() == tmp_path / "w" / "fulgurite"


def test_entries_and_clean_by_name(toy: Any) -> None:
    copied = toy.copy_by_hand()
    assert cache.entries()[0].name == f"downloads/{copied.name}"
    folder = fetch("toy", offline=True)
    by_name = {entry.name: entry for entry in cache.entries()}
    assert by_name["toy"].complete and by_name["toy"].num_bytes > 160_000 and by_name["toy"].path == folder
    assert cache.clean(["toy"]) == by_name["toy"].num_bytes
    assert not folder.exists() and copied.exists()
    with pytest.raises(UserError, match="toy"):
        cache.clean(["toy"])


def test_clean_everything_spares_what_is_not_ours(toy: Any) -> None:
    toy.copy_by_hand()
    fetch("toy", offline=True)
    (toy.cache / "holiday.txt").write_text("mine")
    assert cache.clean() > 160_000
    assert cache.entries() == [] and (toy.cache / "holiday.txt").exists()


def test_clean_does_not_pull_the_rug_from_under_a_fetch(toy: Any) -> None:
    toy.copy_by_hand()
    fetch("toy", offline=True)
    with cache.lock("toy"), pytest.raises(UserError, match="another process"):
        cache.clean(["toy"])


def test_an_empty_or_absent_cache_lists_nothing(own_cache: Path) -> None:
    assert cache.entries() == [] and cache.clean() == 0


def test_require_free_says_how_much_and_how_to_move(tmp_path: Path) -> None:
    cache.require_free(tmp_path / "not" / "there", 1, "a run")
    with pytest.raises(UserError) as caught:
        cache.require_free(tmp_path / "not" / "there", 1e18, "a run")
    assert "a run needs 1,000,000,000,000 MB" in str(caught.value) and "FULGURITE_CACHE" in str(caught.value)


def test_the_whole_room_imports_no_torch() -> None:
    code = (
        "import sys; import fulgurite.datamodules.sources.models, fulgurite.datamodules.sources.tiny_models, "
        "fulgurite.datamodules.dnd.tasks, fulgurite.datamodules.dnd.prompts; "
        "print([m for m in ('torch', 'transformers', 'rich') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
