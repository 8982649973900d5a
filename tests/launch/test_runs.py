"""`fulgurite runs`: past runs are listed, shown, compared and cleaned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.launch.stages.run_folder import all_runs
from fulgurite.registry import UserError


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def copied(hello_runs: Path, tmp_path: Path) -> Path:
    """A root of runs that a test may change."""
    return Path(shutil.copytree(hello_runs, tmp_path / "copied"))


def _runs(root: Path, *arguments: str) -> int:
    return main(["runs", *arguments, "--output", str(root)])


def test_the_list_gives_each_runs_name_state_seed_and_test_metrics(hello_runs, capsys):
    assert _runs(hello_runs) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        r.path.relative_to(hello_runs).as_posix() for r in all_runs(hello_runs)
    ]
    assert [line.split()[1] for line in lines] == ["done", "done", "stopped"]
    assert "accuracy_constant 0.1159" in lines[0] and "accuracy" not in lines[2]


def test_show_prints_the_report_of_the_named_run_and_of_the_newest_by_default(hello_runs, capsys):
    first, *_, newest = all_runs(hello_runs)
    _runs(hello_runs, "show", first.path.name)
    assert capsys.readouterr().out.strip() == (first.path / "report.md").read_text().strip()
    _runs(hello_runs, "show")
    assert "**stopped**" in capsys.readouterr().out
    assert not newest.finished


def test_an_option_may_stand_before_a_verbs_words_or_among_them(hello_runs, capsys):
    name = next(all_runs(hello_runs)).path.name
    _runs(hello_runs, "show", name)
    wanted = capsys.readouterr().out
    for words in (["show", "--output", str(hello_runs), name], [f"--output={hello_runs}", "show", name]):
        assert main(["runs", *words]) == 0
        assert capsys.readouterr().out == wanted


def test_compare_shows_only_the_settings_that_differ_and_both_runs_metrics(hello_runs, capsys):
    a, b, _ = all_runs(hello_runs)
    _runs(hello_runs, "compare", a.path.name, b.path.name)
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["fit.model.init_args.width"] == ["4", "8"]
    assert not any("num_batches" in key for key in rows)
    record = json.loads((a.path / "record.json").read_text())
    assert rows["test/accuracy"][0] == f"{record['metrics']['test/accuracy']:.4g}"


def test_clean_deletes_unfinished_runs_only_and_leaves_one_that_is_running(copied, capsys):
    *finished, cut = all_runs(copied)
    with cut.lock():
        _runs(copied, "clean")
    assert cut.path.is_dir() and "running, left alone" in capsys.readouterr().out
    _runs(copied, "clean")
    assert not cut.path.exists() and all(r.path.is_dir() for r in finished)
    _runs(copied, "clean", finished[0].path.name)
    assert [r.path for r in all_runs(copied)] == [finished[1].path]


def test_a_run_that_does_not_exist_is_told_with_the_command_that_lists_them(hello_runs, capsys):
    assert _runs(hello_runs, "show", "20000101-000000-abcd") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "fulgurite runs list   shows them"
    assert _runs(hello_runs, "compare", "one") == 2
    assert "compare takes two runs" in capsys.readouterr().err


def test_a_finished_run_is_not_run_again_and_its_record_keeps_the_command_that_made_it(copied):
    first, *_ = all_runs(copied)
    before = (first.path / "record.json").read_bytes()
    quick = ["run", "hello", "--output", str(copied), "--trainer.max_epochs", "1", "--data.num_batches", "4"]
    assert main([*quick, "--model.width", "4"]) == 0
    assert (first.path / "record.json").read_bytes() == before
    assert len(list(all_runs(copied))) == 3


def test_a_run_killed_between_its_last_stage_and_its_record_ends_well_when_called_again(copied):
    first, *_ = all_runs(copied)
    record = json.loads((first.path / "record.json").read_text())
    (first.path / "record.json").write_text(json.dumps({**record, "status": "running"}))
    quick = ["run", "hello", "--output", str(copied), "--trainer.max_epochs", "1", "--data.num_batches", "4"]
    assert main([*quick, "--model.width", "4"]) == 0
    assert json.loads((first.path / "record.json").read_text())["status"] == "done"


DAMAGED = ["", "{half", "[]", "{}", "null", '{"schema_version": 1, "metrics": [], "stages": {}}', "[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["record.json", "resolved.json"])
def test_a_damaged_file_is_named_in_a_sentence_and_the_other_runs_are_still_there(copied, capsys, name, content):
    first, second, third = all_runs(copied)
    file = first.path / name
    file.write_text(content)
    assert _runs(copied, "list") == 0
    listed = capsys.readouterr().out
    assert all(r.path.name in listed for r in (first, second, third))
    assert listed.count(f"{file}: ") == (name == "record.json")
    assert "accuracy_constant" in listed  # the second run's numbers
    assert _runs(copied, "compare", first.path.name, second.path.name) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"fulgurite: {file}: ") and len(told.splitlines()) == 2
    if name == "record.json":
        assert _runs(copied, "show", first.path.name) == 2
        assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["record.json", "resolved.json"])
def test_the_same_command_writes_a_damaged_file_anew(copied, capsys, name):
    first, *_ = all_runs(copied)
    before = json.loads((first.path / name).read_text())
    (first.path / name).write_text("[]")
    quick = ["run", "hello", "--output", str(copied), "--trainer.max_epochs", "1", "--data.num_batches", "4"]
    assert main([*quick, "--model.width", "4"]) == 0
    assert "fit: done before, skipped" in capsys.readouterr().err
    after = json.loads((first.path / name).read_text())
    assert after.get("metrics") == before.get("metrics") and after["experiment"] == before["experiment"]
    assert _runs(copied, "compare", *(r.path.name for r in list(all_runs(copied))[:2])) == 0


def test_two_runs_never_share_a_folder(hello_runs):
    first, *_ = all_runs(hello_runs)
    with first.lock(), pytest.raises(UserError, match="another process is running this experiment"), first.lock():
        pass
    with first.lock():  # free again
        pass
