"""`fulgurite fit|validate|test`: a Lightning user's habits work, with experiments by name and short errors besides."""

from __future__ import annotations

import pytest
import yaml

pytestmark = pytest.mark.slow
SHORT = ("--trainer.max_epochs", "1", "--data.num_batches", "3")


def test_print_config_shows_the_resolved_experiment_and_its_flags(forked, tmp_path):
    outcome = forked("fit", "hello", "--model.init_args.width", "5", "--print_config", cwd=tmp_path)
    assert outcome.status == 0, outcome.output
    config = yaml.safe_load(outcome.output)
    assert config["model"] == {
        "class_path": "fulgurite.lightning_modules.hello.HelloModule",
        "init_args": {**config["model"]["init_args"], "width": 5},
    }
    assert config["trainer"]["max_epochs"] == 5
    assert not (tmp_path / "runs").exists()


def test_a_printed_config_runs_and_dotted_flags_win_over_it(forked, tmp_path):
    printed = forked("fit", "hello", *SHORT, "--print_config", cwd=tmp_path)
    (tmp_path / "mine.yaml").write_text(printed.output)
    outcome = forked("fit", "-c", "mine.yaml", "--model.init_args.width", "3", cwd=tmp_path)
    assert outcome.status == 0, outcome.output
    (config,) = tmp_path.glob("runs/fit/*/config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["width"] == 3


def test_fit_then_validate_and_test_with_its_checkpoint(forked, tmp_path):
    assert forked("fit", "hello", *SHORT, cwd=tmp_path).status == 0
    (checkpoint,) = tmp_path.glob("runs/hello/fit-*/checkpoints/last.ckpt")
    for verb, metric in (("validate", "val/accuracy"), ("test", "test/accuracy")):
        outcome = forked(verb, "hello", "--ckpt_path", str(checkpoint), cwd=tmp_path)
        assert outcome.status == 0, outcome.output
        assert metric in outcome.output


def test_class_help_names_the_arguments(forked, tmp_path):
    outcome = forked("fit", "--model.help", "fulgurite.lightning_modules.hello.HelloModule", cwd=tmp_path)
    assert outcome.status == 0
    assert "--model.width WIDTH" in outcome.output
