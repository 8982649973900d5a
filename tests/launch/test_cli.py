"""Command lines taken apart: settings, options and words in any order."""

from __future__ import annotations

import shutil

import pytest

from fulgurite import cli
from fulgurite.launch import verbs
from fulgurite.launch.stages.run_folder import all_runs


@pytest.mark.parametrize(
    ("words", "key", "settings", "config"),
    [
        ("explain hello --trainer.max_epochs 5", None, ["--trainer.max_epochs", "5"], []),
        ("explain hello -c f.yaml trainer.max_epochs", "trainer.max_epochs", [], ["f.yaml"]),
        (
            "explain hello trainer.max_epochs --trainer.max_epochs=5",
            "trainer.max_epochs",
            ["--trainer.max_epochs=5"],
            [],
        ),
        ("explain --model.width 3 hello model.width", "model.width", ["--model.width", "3"], []),
        ("explain hello --trainer.x -1 --config=f.yaml", None, ["--trainer.x", "-1"], ["f.yaml"]),
    ],
)
def test_a_settings_value_is_never_taken_for_a_word(words, key, settings, config, monkeypatch):
    seen = []
    monkeypatch.setattr(verbs, "explain", seen.append)
    assert cli.main(words.split()) == 0
    (options,) = seen
    assert (options.experiment, options.key, options.settings, options.config) == ("hello", key, settings, config)


def test_an_option_without_its_value_takes_no_word(capsys):
    assert cli.main(["explain", "hello", "-c", "--trainer.max_epochs", "5"]) == 2
    assert capsys.readouterr().err.startswith("fulgurite: argument -c: expected one argument\n")


@pytest.mark.parametrize(("verb", "says"), [("run", True), ("explain", False), ("fetch", False)])
def test_only_a_run_is_said_to_go_on(verb, says, monkeypatch, capsys):
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, verb, stop)
    assert cli.main([verb, "hello"]) == 130
    assert ("the same command goes on" in capsys.readouterr().err) == says


def test_settings_without_an_experiment_are_refused_by_fetch(capsys):
    assert cli.main(["fetch", "inflections", "--model.width", "3"]) == 2
    assert "go with --for EXPERIMENT" in capsys.readouterr().err


def test_where_the_terminal_lacks_a_letter_its_number_is_printed(hello_runs, tmp_path, fulgurite_process):
    root = tmp_path / "runs"
    shutil.copytree(hello_runs, root)
    name = next(all_runs(root)).path.name
    (root / "hello" / name / "report.md").write_text("0.97 ± 0.01\n", encoding="utf-8")
    shown = fulgurite_process("runs", "show", name, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "0.97 \\xb1 0.01\n\n", "")
    told = fulgurite_process("runs", "show", "ü", env={"PYTHONIOENCODING": "ascii:strict"})
    assert told.returncode == 2 and "named '\\xfc'" in told.stderr


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_holds_a_run(tmp_path, forked):
    quick = ("--trainer.max_epochs", "1", "--data.num_batches", "2")
    for _ in range(2):
        outcome = forked("run", "hello", *quick, "--output", "r\udcff", cwd=tmp_path)
        assert outcome.status == 0, outcome.output
    (run,) = all_runs(tmp_path)
    assert "r\\udcff" in (run.path / "report.md").read_text(encoding="utf-8")
