"""Notices: warnings that the report of the stage repeats."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from fulgurite.launch.records.notes import MOST_NOTICES, noting, read_notes
from fulgurite.launch.records.record import stage_results
from fulgurite.registry import Notice


def test_notices_become_statements_also_of_a_stage_that_fails(tmp_path: Path) -> None:
    """Each once, even where warnings are ignored; other warnings are none of the report's business."""
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 1, "statements": ["4 clips encoded"]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyError), noting(tmp_path):
            for text in ("shard 3 skipped", "shard 3 skipped", "shard 7 skipped"):
                warnings.warn(text, Notice, stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            raise KeyError
    assert stage_results(tmp_path)["statements"] == ["4 clips encoded", "shard 3 skipped", "shard 7 skipped"]


def test_very_many_are_counted(tmp_path: Path) -> None:
    with pytest.warns(Notice), noting(tmp_path):
        for number in range(MOST_NOTICES + 5):
            warnings.warn(f"shard {number} skipped", Notice, stacklevel=1)
    notes = read_notes(tmp_path)
    assert len(notes) == MOST_NOTICES + 1 and notes[-1].startswith("5 more warnings like these")
