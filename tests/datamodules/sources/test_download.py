"""Fetching: whole or not at all, once for many processes, and with errors that say what to copy where."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.sources import cache, download
from fulgurite.datamodules.sources.catalogue import SOURCES, Member
from fulgurite.datamodules.sources.download import fetch, is_cached
from fulgurite.registry import UserError


def test_a_copied_archive_is_fetched_without_network(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    toy.copy_by_hand()
    assert not is_cached("toy")
    folder = fetch("toy", offline=True)
    assert is_cached("toy")
    assert (folder / "words.txt").read_bytes().startswith(b"one\n")
    assert (folder / "deep" / "more.txt").read_bytes() == b"three\n"
    assert not (folder / "__init__.py").exists()
    said = capsys.readouterr()
    assert "licence: MIT" in said.err and "0.1 MB" in said.err and said.out == ""
    assert toy.leftovers() == ["toy"]


def test_a_second_fetch_touches_nothing_and_says_nothing(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    archive = toy.copy_by_hand()
    folder = fetch("toy", offline=True)
    archive.unlink()
    before = (folder / ".complete").stat().st_mtime_ns
    capsys.readouterr()
    assert fetch("toy", offline=True) == folder
    assert (folder / ".complete").stat().st_mtime_ns == before
    assert capsys.readouterr().err == ""


def test_a_wrong_copy_is_refused_with_both_hashes(toy: Any) -> None:
    copied = toy.copy_by_hand(b"cut off")
    with pytest.raises(UserError) as caught:
        fetch("toy", offline=True)
    text = str(caught.value)
    assert toy.source.sha256 in text and str(copied) in text and text.count("\n") < 6
    assert toy.leftovers() == [] and not is_cached("toy")


def test_without_network_the_error_names_file_hash_and_folder(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULGURITE_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        fetch("toy")
    text = str(caught.value)
    for part in (toy.source.file, toy.source.sha256, str(toy.cache / "downloads"), "fulgurite fetch toy"):
        assert part in text
    assert text.count("\n") < 6 and toy.leftovers() == []


def test_an_unknown_name_gets_a_suggestion(own_cache: Path) -> None:
    with pytest.raises(UserError, match="countries"):
        fetch("country")


@pytest.mark.parametrize("harm", ["missing", "size", "mark"])
def test_a_damaged_entry_is_noticed_and_made_anew(toy: Any, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    toy.copy_by_hand()
    folder = fetch("toy", offline=True)
    if harm == "missing":
        (folder / "words.txt").unlink()
    elif harm == "size":
        os.truncate(folder / "words.txt", 3)
    else:
        (folder / ".complete").write_text("{")
    assert not is_cached("toy")
    capsys.readouterr()
    fetch("toy", offline=True)
    assert "damaged" in capsys.readouterr().err
    assert is_cached("toy") and (folder / "words.txt").stat().st_size == 160_000
    assert toy.leftovers() == ["toy"]


def test_a_damaged_entry_that_cannot_be_fetched_anew_stays(toy: Any) -> None:
    copied = toy.copy_by_hand()
    folder = fetch("toy", offline=True)
    (folder / "words.txt").unlink()
    copied.unlink()
    with pytest.raises(UserError):
        fetch("toy", offline=True)
    assert (folder / "deep" / "more.txt").exists()


def test_eight_processes_at_once_unpack_once(toy: Any) -> None:
    toy.copy_by_hand()
    log = toy.root / "prepared"
    toy.use_prepare(f"with open({str(log)!r}, 'a') as f: f.write('x')\ntime.sleep(1.0)")
    children = [toy.child() for _ in range(8)]
    said = [child.communicate(timeout=50) for child in children]
    assert [child.returncode for child in children] == [0] * 8, said
    assert {out.strip() for out, _ in said} == {str(toy.cache / "sources" / "toy")}
    assert log.read_text() == "x"
    assert sum("licence" in err for _, err in said) == 1
    assert any("waiting" in err for _, err in said)
    assert toy.leftovers() == ["toy"]


def test_kill_in_the_middle_leaves_nothing_that_counts_and_is_swept(toy: Any) -> None:
    toy.copy_by_hand()
    started = toy.root / "started"
    toy.use_prepare(f"pathlib.Path({str(started)!r}).touch()\ntime.sleep(60)")
    child = toy.child()
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    left = toy.leftovers()
    assert len(left) == 1 and left[0].startswith(".tmp.toy.") and not is_cached("toy")
    assert [(e.name, e.complete) for e in cache.entries() if "downloads" not in e.name] == [("toy", False)]
    toy.use(prepare=None)
    fetch("toy", offline=True)  # the dead process's lock is free
    assert toy.leftovers() == ["toy"]


def test_an_error_in_prepare_leaves_nothing(toy: Any) -> None:
    toy.copy_by_hand()
    toy.use_prepare("raise RuntimeError('no')")
    with pytest.raises(RuntimeError):
        fetch("toy", offline=True)
    assert toy.leftovers() == []


def test_too_little_disk_is_said_before_anything_is_written(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.copy_by_hand()
    monkeypatch.setattr(cache, "free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match="FULGURITE_CACHE"):
        fetch("toy", offline=True)
    assert toy.leftovers() == []


def test_a_disk_that_fills_up_leaves_nothing(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.copy_by_hand()

    def full(source: object, archive: Path, folder: Path) -> None:
        (folder / "words.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "unpack", full)
    with pytest.raises(UserError, match="disk became full"):
        fetch("toy", offline=True)
    assert toy.leftovers() == []


def test_a_member_that_the_archive_lacks_is_an_error(toy: Any) -> None:
    toy.copy_by_hand()
    toy.use(members=(*toy.source.members, Member("toy_pack/other/*")))
    with pytest.raises(UserError, match="toy_pack/other"):
        fetch("toy", offline=True)
    assert toy.leftovers() == []


def test_a_new_recipe_makes_the_entry_anew(toy: Any) -> None:
    toy.copy_by_hand()
    fetch("toy", offline=True)
    toy.use(recipe=2)
    assert not is_cached("toy")
    fetch("toy", offline=True)
    assert is_cached("toy")


def test_a_cache_that_cannot_be_made_is_the_users_to_mend(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy.root / "file").write_text("")
    monkeypatch.setenv("FULGURITE_CACHE", str(toy.root / "file" / "cache"))
    with pytest.raises(UserError, match="FULGURITE_CACHE"):
        fetch("toy", offline=True)


def test_the_catalogue_is_complete() -> None:
    for name, source in SOURCES.items():
        assert name == source.name and "." not in name and source.licence and source.disk_mb
        if source.kind != "generated":
            assert len(source.sha256) == 64 and source.file and source.members and source.download_mb


def test_a_real_source_comes_over_the_network() -> None:
    """By default this fetches 0.8 MB into the user's own cache, unless it is there."""
    try:
        folder = fetch("inflections")
    except UserError as error:
        pytest.skip(f"the source 'inflections' is not cached and cannot be fetched: {str(error).splitlines()[0]}")
    assert sorted(p.name for p in folder.glob("*.gz")) == ["infl_lu.csv.gz", "lemma_lu.csv.gz"]
