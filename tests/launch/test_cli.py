"""Command lines taken apart: settings, options and words in any order."""

from __future__ import annotations

import pytest

from fulgurite import cli
from fulgurite.launch import verbs


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
