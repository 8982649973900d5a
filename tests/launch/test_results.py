"""`fulgurite results`: published records become docs/results.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.launch.records import results
from fulgurite.launch.stages.run_folder import all_runs
from fulgurite.registry import ROOT


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty docs folder in the place of the repository's."""
    folder = tmp_path / "docs"
    folder.mkdir()
    monkeypatch.setattr(results, "DOCS", folder)
    return folder


def _published(docs: Path, root: Path, name: str, **changes: object) -> Path:
    """Publish a run, then change fields of the copy."""
    file = results.publish(root, name)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def test_without_records_the_page_says_so(docs, capsys):
    assert main(["results"]) == 0
    assert capsys.readouterr().out.strip() == str(docs / "results.md")
    assert "No record has been published yet" in (docs / "results.md").read_text()


def test_a_published_run_appears_with_numbers_controls_machine_command_and_the_papers_numbers(docs, hello_runs, capsys):
    run = next(all_runs(hello_runs))
    assert main(["results", "--output", str(hello_runs), "--publish", run.path.name]) == 0
    (file,) = (docs / "records").iterdir()
    record = json.loads(file.read_text())
    assert file.name == f"hello--{record['created'][:10]}-{run.path.name[-4:]}.json"
    assert record == json.loads((run.path / "record.json").read_text())
    record["published"] = {"accuracy on MNIST": 0.99}
    table = {"title": "controls", "columns": ["what", "accuracy"], "rows": [["constant", 0.116]]}
    record["stages"][1]["tables"] = [table]
    record["stages"][1]["statements"] = ["The method beats the constant answer."]
    file.write_text(json.dumps(record))
    page = results.write_results().read_text()
    for wanted in (
        f"| test/accuracy | {record['metrics']['test/accuracy']:.4g} |",
        "| constant | 0.116 |",
        "The method beats the constant answer.",
        "| accuracy on MNIST | 0.99 |",
        "one seed: no spread known",
        record["command"],
        record["machine"]["cpu"],
        record["created"][:10],
        f"records/{file.name}",
    ):
        assert wanted in page


def test_the_page_depends_on_the_records_alone(docs, hello_runs):
    for run in list(all_runs(hello_runs))[:2]:
        results.publish(hello_runs, run.path.name)
    first = results.write_results().read_bytes()
    for file in sorted((docs / "records").iterdir(), reverse=True):  # other order on disk, other times
        shutil.move(file, docs / "moved.json")
        shutil.move(docs / "moved.json", file)
    assert results.write_results().read_bytes() == first


def test_a_record_made_with_changed_files_is_marked(docs, hello_runs):
    name = next(all_runs(hello_runs)).path.name
    clean = {"commit": "a" * 40, "changed_files": 0}
    _published(docs, hello_runs, name, git=clean)
    assert "uncommitted code" not in results.write_results().read_text()
    _published(docs, hello_runs, name, git={**clean, "changed_files": 2})
    assert "**uncommitted code** (2 changed files)" in results.write_results().read_text()


def test_the_table_shows_the_metrics_that_the_experiment_names_else_the_first_four(docs, hello_runs):
    name = next(all_runs(hello_runs)).path.name
    metrics = {f"test/{letter}": n / 8 for n, letter in enumerate("edcba")}
    for headline, wanted in (
        (["test/e", "test/b", "test/absent"], "| e 0, b 0.375 |"),
        (None, "| a 0.5, b 0.375, c 0.25, d 0.125 |"),
        (["test/absent"], "| a 0.5, b 0.375, c 0.25, d 0.125 |"),
    ):
        _published(docs, hello_runs, name, metrics=metrics, headline=headline)
        assert wanted in results.write_results().read_text()


def test_a_summary_over_seeds_is_published_with_its_spread(docs, hello_runs, tmp_path, capsys):
    run = next(all_runs(hello_runs))
    record = json.loads((run.path / "record.json").read_text())
    metric = {"mean": 0.5, "std": 0.01, "low": 0.4, "high": 0.6, "n": 2, "values": [0.49, 0.51], "note": ""}
    del record["stages"], record["seed"]
    summary = {**record, "seeds": [0, 1], "metrics": {"test/accuracy": metric}, "tables": []}
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "seeds-0123abcd.json").write_text(json.dumps(summary))
    file = results.publish(tmp_path, "seeds-0123abcd")
    assert file.name.endswith("-0123abcd.json")
    page = results.write_results().read_text()
    assert "accuracy 0.5 ± 0.01" in page and "| test/accuracy | 0.5 | 0.01 | 0.49 to 0.51 | 2 |" in page


def test_an_unfinished_run_is_refused(docs, hello_runs, capsys):
    cut = next(r for r in all_runs(hello_runs) if not r.finished)
    assert main(["results", "--output", str(hello_runs), "--publish", cut.path.name]) == 2
    assert "Only a finished run is published" in capsys.readouterr().err
    assert not (docs / "records").exists()


@pytest.mark.parametrize("text", ["{half", "[]", '{"schema_version": 0}', '{"schema_version": 1}'])
def test_a_record_that_cannot_be_read_is_named_in_a_short_error(text, docs, capsys):
    file = docs / "records" / "hello--2026-01-01-abcd.json"
    file.parent.mkdir()
    file.write_text(text)
    assert main(["results"]) == 2
    error = capsys.readouterr().err
    assert str(file) in error and len(error.splitlines()) <= 3


def test_from_an_installed_copy_the_way_out_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results, "DOCS", tmp_path / "absent")
    assert main(["results"]) == 2
    assert "Clone fulgurite and run the command there" in capsys.readouterr().err


def test_the_committed_page_is_the_one_that_the_committed_records_give(monkeypatch, tmp_path):
    copy = Path(shutil.copytree(ROOT / "docs", tmp_path / "docs"))
    monkeypatch.setattr(results, "DOCS", copy)
    before = (copy / "results.md").read_text(encoding="utf-8")
    assert results.write_results().read_text(encoding="utf-8") == before
