"""record.json is what launch/records/record.schema.json and docs/record.md say it is."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.records.record import finite, git_state, write_record
from fulgurite.launch.stages.run_folder import all_runs, choose
from fulgurite.registry import ROOT

SCHEMA = json.loads((ROOT / "launch" / "records" / "record.schema.json").read_text(encoding="utf-8"))


def _faults(record: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{list(c.path)}: {c.message}" for e in checker.iter_errors(record) for c in [e, *(e.context or [])]]


def test_the_record_of_every_run_fits_the_schema_finished_or_not(hello_runs):
    for run in all_runs(hello_runs):
        record = json.loads((run.path / "record.json").read_text(), parse_constant=pytest.fail)
        assert not _faults(record)
        assert record["status"] == ("done" if run.finished else "stopped")


def test_the_schema_refuses_a_record_with_a_field_missing_unknown_or_of_another_version(hello_runs):
    record = json.loads((next(all_runs(hello_runs)).path / "record.json").read_text())
    for wrong in (
        {k: v for k, v in record.items() if k != "metrics"},
        {**record, "extra": 1},
        {**record, "schema_version": 0},
    ):
        assert _faults(wrong)


def test_the_documentation_names_every_field():
    def names(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node.get("properties", {})).union(*(names(v) for v in node.values()), set())
        return set().union(*(names(v) for v in node)) if isinstance(node, list) else set()

    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    assert not [n for n in names(SCHEMA) if f"| `{n}` |" not in page]


def test_tables_and_statements_of_a_stage_reach_the_record_and_no_nan_does(tmp_path):
    experiment = resolve("hello")
    with choose(experiment, tmp_path, new=True) as run:
        pass
    results = {
        "schema_version": 1,
        "metrics": {"test/accuracy": math.nan},
        "tables": [
            {
                "title": "controls",
                "columns": ["what", "accuracy"],
                "rows": [["constant", 0.1], ["soup", math.inf]],
                "note": "",
            }
        ],
        "statements": ["The method ties with the constant answer."],
    }
    (run.path / "test").mkdir()
    (run.path / "test" / "results.json").write_text(json.dumps(results))
    write_record(run, experiment, "fulgurite run hello", None)
    record = json.loads((run.path / "record.json").read_text(), parse_constant=pytest.fail)
    assert not _faults(record)
    stage = record["stages"][1]
    assert stage["tables"][0]["rows"] == [["constant", 0.1], ["soup", None]]
    assert stage["statements"] == results["statements"] and record["metrics"]["test/accuracy"] is None


def test_finite_changes_nothing_else():
    content = {"a": [1, 2.5, "x", None, True], "b": {"c": -0.0}}
    assert finite(content) == content


def test_files_that_git_does_not_know_are_no_changes(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "known.py").write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr("fulgurite.launch.records.record.ROOT", tmp_path)
    for name, changed in (("notes.txt", 0), ("known.py", 1)):
        (tmp_path / name).write_text("new")
        assert git_state.__wrapped__()["changed_files"] == changed


def test_a_failed_run_leaves_its_record_with_the_error(tmp_path):
    import fulgurite

    with pytest.raises(Exception, match="Invalid learning rate"):
        fulgurite.run(
            "hello", output=tmp_path, model__optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": -1.0}}
        )
    (file,) = Path(tmp_path).rglob("record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "failed" and "Invalid learning rate" in record["error"]
    assert not _faults(record)
