"""`fulgurite explain`: file and line, or flag, of every value."""

from __future__ import annotations

import re

import pytest

from fulgurite import cli
from fulgurite.launch.config.experiment import resolve
from fulgurite.registry import UserError

GRANDPARENT = """\
trainer:
  accelerator: cpu
  max_epochs: 9
"""
PARENT = """\
base: grandparent.yaml
seed_everything: 4
model:
  class_path: hello
  init_args:
    width: 8
data: {class_path: digits}
trainer:
  max_epochs: 7
"""
STAGED = """\
base: estimates.yaml
seed_everything: 11
stages:
- name: train
  verb: fit
  experiment: parent.yaml
  overrides:
    model.width: 12
    trainer:
      log_every_n_steps: 2
- name: again
  verb: test
  experiment: parent.yaml
  overrides: {ckpt_path: "${run_dir}/train/checkpoints/last.ckpt"}
train:
  data:
    batch_size: 32
"""
OVER = """\
train.trainer.max_epochs: 3
again:
  model: {width: 16}
"""


@pytest.fixture
def explain(tmp_path, monkeypatch, capsys):
    """`explain("staged.yaml", …)` -> {key: (value, set by)}."""
    for name, text in {
        "grandparent": GRANDPARENT,
        "parent": PARENT,
        "staged": STAGED,
        "over": OVER,
        "estimates": "estimate: {minutes: 1}\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> dict[str, tuple[str, str]]:
        assert cli.main(["explain", *arguments]) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.split() == ["key", "value", "set", "by"]
        cells = [re.split(r"  +", line) for line in lines]
        return {key: (value, origin) for key, value, origin in cells}

    return call


def test_base_and_child(explain):
    found = explain("parent.yaml")
    assert found["trainer.accelerator"] == ("cpu", "grandparent.yaml:2")
    assert found["trainer.max_epochs"] == ("7", "parent.yaml:9, over grandparent.yaml:3 (9)")
    assert found["model.class_path"] == ("fulgurite.lightning_modules.hello.HelloModule", "parent.yaml:4")
    assert found["model.init_args.width"] == ("8", "parent.yaml:6")
    assert found["seed_everything"] == ("4", "parent.yaml:2")


def test_stages_overrides_and_keys_named_after_a_stage(explain):
    found = explain("staged.yaml")
    assert found["train.model.init_args.width"] == ("12", "staged.yaml:8, over parent.yaml:6 (8)")
    assert found["train.trainer.log_every_n_steps"] == ("2", "staged.yaml:10")
    assert found["train.data.init_args.batch_size"] == ("32", "staged.yaml:17")
    assert found["train.trainer.max_epochs"] == ("7", "parent.yaml:9, over grandparent.yaml:3 (9)")
    assert found["again.ckpt_path"] == ("${run_dir}/train/checkpoints/last.ckpt", "staged.yaml:14")
    assert found["again.model.init_args.width"] == ("8", "parent.yaml:6")


def test_files_laid_over_and_flags_in_every_form(explain):
    found = explain(
        "staged.yaml", "-c", "over.yaml", "--train.trainer.max_epochs", "2", "--again.model.init_args.width=4",
        "--train.model.optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 1e-4}}",
    )  # fmt: skip
    assert found["train.trainer.max_epochs"] == (
        "2",
        "--train.trainer.max_epochs, over over.yaml:1 (3), over parent.yaml:9 (7), over grandparent.yaml:3 (9)",
    )
    assert found["again.model.init_args.width"] == (
        "4",
        "--again.model.init_args.width, over over.yaml:3 (16), over parent.yaml:6 (8)",
    )
    assert found["train.model.init_args.optimizer.class_path"] == ("torch.optim.SGD", "--train.model.optimizer")
    assert found["train.model.init_args.optimizer.init_args.lr"] == ("0.0001", "--train.model.optimizer")


def test_one_key_in_short_form_with_a_short_flag(explain):
    found = explain("staged.yaml", "train.model.width", "--train.model.width", "6")
    assert found == {
        "train.model.init_args.width": ("6", "--train.model.width, over staged.yaml:8 (12), over parent.yaml:6 (8)")
    }
    assert (
        explain("parent.yaml", "model.width", "--model.width", "5")["model.init_args.width"][1]
        == "--model.width, over parent.yaml:6 (8)"
    )


def test_everything_below_a_key(explain):
    assert set(explain("staged.yaml", "train.trainer")) == {
        "train.trainer.accelerator",
        "train.trainer.max_epochs",
        "train.trainer.log_every_n_steps",
    }


def test_a_default_nobody_set_is_told_with_its_place(explain):
    (found,) = explain("parent.yaml", "data.batch_size").values()
    value, origin = found
    assert value == "64"
    assert re.fullmatch(r"default, lightning_modules/hello.py:\d+", origin)
    (found,) = explain("staged.yaml", "train.trainer.gradient_clip_val").values()
    assert found[0] == "None"
    assert re.fullmatch(r"default, .*trainer/trainer.py:\d+", found[1])


def test_the_seed_of_a_stage_comes_from_the_experiment(explain):
    assert explain("staged.yaml")["train.seed_everything"] == ("11", "staged.yaml:2, over parent.yaml:2 (4)")


def test_a_child_s_list_of_stages_drops_what_its_parent_says_of_others(explain, tmp_path):
    child = "base: staged.yaml\nstages:\n- {name: train, experiment: parent.yaml}\n"
    (tmp_path / "child.yaml").write_text(child)
    (tmp_path / "staged.yaml").write_text(STAGED + "again:\n  model: {width: 3}\n")
    found = explain("child.yaml")
    assert found["train.data.init_args.batch_size"] == ("32", "staged.yaml:17")
    assert not any(key.startswith("again.") for key in found)
    (tmp_path / "child.yaml").write_text(child + "again: {model: {width: 3}}\n")
    with pytest.raises(UserError, match=r"child.yaml:4: unknown key 'again'"):
        resolve("child.yaml")


def test_arguments_of_a_class_that_a_grandchild_no_longer_names_are_left_out(tmp_path, capsys) -> None:
    """The parent chose another class than the grandparent, and the child names the parent's again."""
    adam = "{class_path: torch.optim.AdamW, init_args: {lr: 0.1, betas: [0.8, 0.9]}}"
    sgd = "{class_path: torch.optim.SGD, init_args: {lr: %s}}"
    files = {"first": ("parent.yaml", adam), "second": ("first.yaml", sgd % 0.2), "third": ("second.yaml", sgd % 0.3)}
    (tmp_path / "grandparent.yaml").write_text(GRANDPARENT)
    (tmp_path / "parent.yaml").write_text(PARENT)
    for name, (base, optimizer) in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}\nmodel:\n  init_args: {{optimizer: {optimizer}}}\n")
    settings = resolve(str(tmp_path / "third.yaml")).stages[0].settings.to_dict()
    assert settings["model"]["init_args"]["optimizer"]["init_args"] == {"lr": 0.3}
    assert capsys.readouterr().err.count("'betas'") == 1
