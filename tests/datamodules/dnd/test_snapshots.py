"""Tasks of a snapshot store by name and by kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.datamodules.dnd.snapshots import SnapshotStore
from fulgurite.datamodules.dnd.text import TextFormat
from fulgurite.registry import UserError


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    kinds = {"joy": "emotion", "anger": "emotion", "sums": "arithmetic"}
    tasks = {name: {"spec": name, "steps": [1], "kind": kind} for name, kind in kinds.items()} | {
        "plural": {"spec": "plural", "steps": [1]}
    }
    made = SnapshotStore(tmp_path)
    made.create(base_model="tiny", adapter_config={}, text=TextFormat(), tasks=tasks)
    return made


def test_a_kind_stands_for_all_its_tasks_each_once(store: SnapshotStore) -> None:
    assert store.named(["kind:emotion"]) == ["joy", "anger"]
    assert store.named(["anger", "kind:emotion", "sums"]) == ["anger", "joy", "sums"]
    assert store.named(["kind:plural"]) == ["plural"]  # a task without a kind is its own


@pytest.mark.parametrize(("name", "text"), [("kind:emotions", "mean emotion"), ("joi", "mean joy")])
def test_an_unknown_one_is_refused_with_its_neighbour(store: SnapshotStore, name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        store.named(["sums", name])
