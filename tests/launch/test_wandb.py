"""W&B as a switch, without a network: offline runs are read back from their files."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.launch import wandb as ours
from fulgurite.launch.config.settings import Leaf, Settings
from fulgurite.launch.stages.placeholders import expand
from fulgurite.launch.stages.run_folder import all_runs
from fulgurite.registry import UserError

KEY = "0123456789" * 4


pytestmark = pytest.mark.usefixtures("no_key")


def test_a_run_without_a_key_is_one_offline_run_with_metrics_and_checkpoint(tmp_path, capsys):
    quick = ["--trainer.max_epochs", "1", "--data.num_batches", "4", "--trainer.log_every_n_steps", "2"]
    status = main(
        ["run", "hello", "--output", str(tmp_path / "runs"), *quick, "--wandb", "digits", "--wandb-tags", "a,b"]
    )
    assert status == 0
    (run,) = all_runs(tmp_path / "runs")
    identity = (run.path / "wandb_id").read_text().strip()
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    # fit and test have one id; W&B numbers the second's folder if both began in the same second
    assert len(folders) == 2 and all(re.search(rf"-{identity}(-\d+)?$", f.name) for f in folders)
    for wanted in ("test/accuracy", "train/loss", "last.ckpt", f"{identity}-fit"):
        assert _logged(folders, wanted)
    assert "Tip" not in capsys.readouterr().err


def test_settings_commit_and_versions_are_the_config_of_the_run(tmp_path):
    with ours.open_run(tmp_path / "run" / "fit", project="p") as run:
        ours.log_settings(run, tmp_path / "run" / "fit", {"model": {"width": 3}})
        config = dict(run.config)
    assert config["fit"]["model"]["width"] == 3
    assert config["versions"]["torch"] and "git" in config


def test_a_failed_stage_ends_its_run_with_exit_code_1(tmp_path, monkeypatch):
    import wandb

    codes: list[object] = []
    finish = wandb.finish

    def noted(exit_code: int | None = None) -> None:
        codes.append(exit_code)
        finish(exit_code=exit_code)

    monkeypatch.setattr(wandb, "finish", noted)
    flags = ["--model.optimizer.class_path", "torch.optim.SGD", "--model.optimizer.lr", "-1.0"]
    assert main(["run", "hello", "--output", str(tmp_path / "runs"), "--wandb", "p", *flags]) == 2
    assert codes == [1]


@pytest.mark.parametrize("flag", ["entity", "group", "tags"])
def test_an_option_of_wandb_without_wandb_is_refused(flag, tmp_path, capsys):
    assert main(["run", "hello", "--output", str(tmp_path / "runs"), f"--wandb-{flag}", "a"]) == 2
    assert f"--wandb-{flag} without --wandb" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_finished_run_says_that_nothing_is_logged(hello_runs, tmp_path, capsys):
    root = shutil.copytree(hello_runs, tmp_path / "copied")
    quick = ["run", "hello", "--output", str(root), "--trainer.max_epochs", "1", "--data.num_batches", "4"]
    assert main([*quick, "--model.width", "4", "--wandb", "p"]) == 0
    assert "nothing is logged to W&B" in capsys.readouterr().err
    assert not list(root.rglob("wandb_id"))


def test_a_command_takes_an_artifact_where_it_takes_a_path(tmp_path, monkeypatch):
    from fulgurite.launch import command_line

    def command(place: Path, text: str = "") -> None:
        """Note what is given."""
        seen.append((place, text))

    seen: list[tuple[Path, str]] = []
    monkeypatch.setattr(command_line, "COMMANDS", {"some command": command})
    monkeypatch.setattr(ours, "local_path", lambda text: tmp_path / text.rpartition("/")[2])
    command_line.run_command("some command", ["--place", "artifact:team/p/abc-gen:v0", "--text", "artifact:x"])
    assert seen == [(tmp_path / "abc-gen:v0", "artifact:x")]


def test_a_run_folder_keeps_its_id(tmp_path):
    first = ours.run_id(tmp_path)
    assert ours.run_id(tmp_path) == first
    assert ours._arguments(tmp_path / "fit", "p")["id"] == ours._arguments(tmp_path / "test", "p")["id"] == first
    assert ours._arguments(tmp_path / "fit", "p")["resume"] == "allow"


def test_results_tables_pictures_and_adapters_are_logged_with_the_stage(tmp_path):
    stage = tmp_path / "run" / "test"
    (stage / "adapter").mkdir(parents=True)
    (stage / "adapter" / "adapter_config.json").write_text("{}")
    shutil.copy(_picture(tmp_path), stage / "bars.png")
    table = {"title": "controls", "columns": ["what", "accuracy"], "rows": [["constant", 0.116]]}
    content = {"schema_version": 1, "metrics": {"test/gap": 0.25}, "tables": [table], "figures": ["bars.png"]}
    (stage / "results.json").write_text(json.dumps(content))
    with ours.open_run(stage, project="p") as run:
        ours.log_stage(run, stage)
        identity, summary = run.id, dict(run.summary)
    assert summary["test/gap"] == 0.25
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert list(folder.glob("files/media/images/test/bars*.png"))
    assert list(folder.glob("files/media/table/test/controls*.json"))
    assert _logged([folder], f"{identity}-test-adapter")


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_the_mode_follows_the_key_and_wandb_mode(environment, mode, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arguments = ours._arguments(tmp_path / "fit", "p")
    assert arguments["mode"] == mode
    assert KEY not in str({k: v for k, v in arguments.items() if k != "settings"})


def test_a_key_in_netrc_counts(tmp_path):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert ours.has_key()


def test_an_artifact_where_a_path_is_needs_a_key(tmp_path):
    settings = Settings({("ckpt_path",): Leaf("artifact:team/digits/abc-fit:v0", "--ckpt_path")})
    with pytest.raises(UserError, match="needs a W&B key, and none is set"):
        expand(settings, tmp_path, seed=0)


def test_an_artifact_becomes_the_path_of_its_one_file_or_its_folder(tmp_path, monkeypatch):
    import wandb

    class Artifact:
        qualified_name = "team/digits/abc-fit:v0"

        def download(self, root: str) -> str:
            Path(root).mkdir(parents=True)
            (Path(root) / "last.ckpt").write_bytes(b"weights")
            return root

    class Api:
        def artifact(self, name: str) -> Artifact:
            assert name == "team/digits/abc-fit:v0"
            return Artifact()

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wandb, "Api", Api)
    settings = Settings({("ckpt_path",): Leaf("artifact:team/digits/abc-fit:v0", "--ckpt_path")})
    path = Path(expand(settings, tmp_path, seed=0).get("ckpt_path"))
    assert path.read_bytes() == b"weights" and path.is_relative_to(tmp_path / "cache")


def _logged(folders: list[Path], text: str, timeout_s: float = 20) -> bool:
    """Whether an offline run's log holds a text; wandb's own process may write it a moment after the run."""
    end = time.monotonic() + timeout_s
    while not (found := any(text.encode() in f.read_bytes() for folder in folders for f in folder.glob("*.wandb"))):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return found


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(folder / "picture.png")
    return folder / "picture.png"
