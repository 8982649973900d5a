"""Files of ours that somebody has damaged: told in a sentence or done without, never a traceback, never a hang."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.config.settings import Settings
from fulgurite.launch.records.metrics_csv import read_metrics
from fulgurite.launch.records.record import stage_results
from fulgurite.launch.stages.lightning_stage import _checkpoint
from fulgurite.launch.stages.run_folder import all_runs
from fulgurite.registry import UserError

OF_RUN = {"schema_version": 1, "experiment": "x", "digest": "d", "seed": 0, "created": "2026", "code": "c"}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"schema_version": 1}', '{"schema_version": 1, "stages": 3}']
    + [json.dumps({**OF_RUN, "stages": s}) for s in (3, {"fit": 3}, {"fit": {}}, {"fit": {"state": "done"}})]
    + [json.dumps({**OF_RUN, "created": 3, "stages": {}})],
)
def test_a_damaged_run_json_is_passed_over(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hello" / "x").mkdir(parents=True)
    (tmp_path / "hello" / "x" / "run.json").write_text(content)
    assert list(all_runs(tmp_path)) == []
    assert main(["runs", "list", "--output", str(tmp_path)]) == 0
    assert "no runs" in capsys.readouterr().out


def test_a_truncated_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="damaged\nDelete it"):
        _checkpoint("fit", Settings(), tmp_path)


def test_junk_in_metrics_and_results_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,metric,value\n1,0,train/loss,0.5\nx,y,z,w\n2,0,train/loss,0.2")
    assert read_metrics(tmp_path / "metrics.csv") == [(1, 0, "train/loss", 0.5), (2, 0, "train/loss", 0.2)]
    (tmp_path / "metrics.csv").write_bytes(
        b'step,epoch,metric,value\n1,0,a,0.5\n\xff\xfe,\n2,0,a,1\n"' + b"x" * 200_000
    )
    assert read_metrics(tmp_path / "metrics.csv") == [(1, 0, "a", 0.5), (2, 0, "a", 1.0)]
    for content in ("", "[1]", json.dumps({"metrics": [1]})):
        (tmp_path / "results.json").write_text(content)
        assert stage_results(tmp_path) == {}


def test_aliases_that_expand_without_end_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["base: hello", "model:", "  init_args:", "    width:", "    - &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"    - &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="aliases expand"):
        resolve(str(tmp_path / "bomb.yaml"))


@pytest.mark.parametrize(
    "line",
    ["published: [a]", "published: {a: b}", "estimate: 3", "estimate: {minutes: abc}", "sources: 3", "title: [a, b]",
     "title: \"\\ud800\"", "stages: []", f"stages: [{{name: {'x' * 300}, experiment: hello}}]",
     "stages: [{name: a, command: [dnd, tasks]}]", f"base: {'y' * 300}", "base: ~nouser/x.yaml"],
)  # fmt: skip
def test_what_an_experiment_says_of_itself_is_checked_before_the_work(tmp_path: Path, line: str) -> None:
    base = "" if line.startswith(("base", "stages")) else "base: hello\n"
    (tmp_path / "mine.yaml").write_text(base + line + "\n")
    with pytest.raises(UserError) as caught:
        resolve(str(tmp_path / "mine.yaml"))
    assert len(str(caught.value).splitlines()) <= 6


def test_a_name_of_three_hundred_letters_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a" * 300]) == 2
    assert "300 letters" in capsys.readouterr().err
