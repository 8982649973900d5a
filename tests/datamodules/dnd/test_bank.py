"""A bank of tasks: a folder of JSON lines, packed or not."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from fulgurite.datamodules.dnd.bank import TaskBank
from fulgurite.registry import UserError


def lines(start: int, count: int) -> str:
    return "".join(json.dumps({"prompt": f"say {i}", "response": str(i)}) + "\n" for i in range(start, start + count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("joy", "anger", "sums"):
        (tmp_path / f"{name}.train.jsonl").write_text(lines(0, 40))
        (tmp_path / f"{name}.test.jsonl").write_text(lines(100, 5))
    (tmp_path / "packed.train.jsonl.xz").write_bytes(lzma.compress(lines(0, 40).encode()))
    (tmp_path / "packed.test.jsonl.xz").write_bytes(lzma.compress(lines(100, 5).encode()))
    kinds = {"joy": {"kind": "emotion"}, "anger": {"kind": "emotion"}, "sums": {"kind": "arithmetic"}}
    (tmp_path / "meta.json").write_text(json.dumps(kinds))
    return tmp_path


def test_a_packed_task_is_the_task_that_was_packed(folder: Path) -> None:
    bank = TaskBank(folder)
    assert sorted(bank.names) == ["anger", "joy", "packed", "sums"]
    packed, plain = bank.load("packed"), bank.load("joy")
    assert (packed.train, packed.val, packed.test) == (plain.train, plain.val, plain.test)
    assert len(packed.test) == 5 and packed.val and bank.kind("packed") == "packed"


def test_an_unknown_task_is_refused_with_its_neighbour(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no task 'joi'\nDid you mean joy"):
        TaskBank(folder).load("joi")


def test_a_bad_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        TaskBank(tmp_path / "none")
    with pytest.raises(UserError, match="no task here"):
        (tmp_path / "empty").mkdir()
        TaskBank(tmp_path / "empty")
    with pytest.raises(UserError, match="among the named"):
        TaskBank(folder, ["joy"])
    (folder / "meta.json").write_text("[1]")
    with pytest.raises(UserError, match=r"meta\.json"):
        TaskBank(folder)
    (folder / "packed.train.jsonl.xz").write_bytes(lzma.compress(lines(0, 40).encode())[:-20])
    (folder / "meta.json").unlink()
    with pytest.raises(UserError, match="no whole xz file"):
        TaskBank(folder).load("packed")
