"""A bank of tasks: a folder of JSON lines, packed or not, and splits that share no task."""

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


def test_a_fold_shares_no_task(folder: Path) -> None:
    bank = TaskBank(folder)
    folds = list(bank.leave_one_out(val=["sums"]))
    assert [f.test for f in folds] == [("anger",), ("joy",), ("packed",)]
    for fold in folds:
        assert fold.val == ("sums",) and not {*fold.train} & {*fold.test, *fold.val}
        assert len(fold.train) == 2


def test_a_left_out_kind_leaves_no_relative(folder: Path) -> None:
    by_kind = {f.test: f for f in TaskBank(folder).leave_one_kind_out()}
    assert set(by_kind["anger", "joy"].train) == {"sums", "packed"}
    assert len(by_kind) == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b.fold(["joy"], ["joy"]), "two parts"),
        (lambda b: b.fold(["joy"], train=["joy", "sums"]), "two parts"),
        (lambda b: b.fold(["joi"]), "no task 'joi'"),
        (lambda b: b.fold(b.names), "nothing is left"),
        (lambda b: b.spec("nothing"), "no task 'nothing'"),
    ],
)
def test_a_wrong_split_is_refused(folder: Path, change: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        change(TaskBank(folder))  # type: ignore[operator]


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
