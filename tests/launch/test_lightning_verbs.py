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


def test_without_a_checkpoint_the_newest_finished_run_s_is_taken_and_named(forked, tmp_path):
    outcome = forked("test", "hello", cwd=tmp_path)
    assert outcome.status == 2
    assert "test needs a checkpoint, and runs holds no finished run of hello" in outcome.output
    assert "--ckpt_path" in outcome.output and "fulgurite run hello" in outcome.output
    assert forked("run", "hello", *SHORT, cwd=tmp_path).status == 0
    (checkpoint,) = tmp_path.glob("runs/hello/*/fit/checkpoints/last.ckpt")
    for verb, metric in (("validate", "val/accuracy"), ("test", "test/accuracy")):
        outcome = forked(verb, "hello", cwd=tmp_path)
        assert outcome.status == 0, outcome.output
        assert f"checkpoint: {checkpoint.relative_to(tmp_path)}, of the newest finished run" in outcome.output
        assert metric in outcome.output


def test_run_dir_and_seed_stand_for_the_verb_s_own(forked, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "base: hello\nseed_everything: 7\ntrainer: {default_root_dir: '${run_dir}/deep'}\n"
        "data: {init_args: {seed: '${seed}'}}\n"
    )
    outcome = forked("fit", "mine.yaml", *SHORT, cwd=tmp_path)
    assert outcome.status == 0, outcome.output
    (config,) = tmp_path.glob("runs/mine/fit-*/deep/config.yaml")
    assert yaml.safe_load(config.read_text())["data"]["init_args"]["seed"] == 7


def test_class_help_names_the_arguments(forked, tmp_path):
    outcome = forked("fit", "--model.help", "fulgurite.lightning_modules.hello.HelloModule", cwd=tmp_path)
    assert outcome.status == 0
    assert "--model.width WIDTH" in outcome.output
