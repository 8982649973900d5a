"""`fulgurite run --seeds`: one run a seed, then the mean, the spread and what is missing."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from fulgurite.cli import main
from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.stages.run_folder import RunFolder, all_runs
from fulgurite.launch.stages.runner import RunOptions
from fulgurite.launch.stages.seeds import interval, metric_table, write_summary

QUICK = ["--trainer.max_epochs", "1", "--data.num_batches", "4", "--model.width", "4"]


def _run(root: Path, *arguments: str) -> int:
    return main(["run", "hello", "--output", str(root), *QUICK, *arguments])


def _summary(root: Path) -> dict[str, Any]:
    (file,) = (root / "hello").glob("seeds-*.json")
    return dict(json.loads(file.read_text(), parse_constant=pytest.fail))


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a run with seeds 3 and 4."""
    root = tmp_path_factory.mktemp("seeds")
    assert _run(root, "--seeds", "3,4") == 0
    return root


def test_each_seed_is_a_run_of_its_own_and_the_summary_holds_their_values(two_seeds):
    summary = _summary(two_seeds)
    records = [json.loads((two_seeds / r["folder"] / "record.json").read_text()) for r in summary["runs"]]
    assert [r["seed"] for r in records] == summary["seeds"] == [3, 4]
    metric = summary["metrics"]["test/accuracy"]
    values = [r["metrics"]["test/accuracy"] for r in records]
    assert metric["values"] == values and values[0] != values[1]
    assert metric["mean"] == pytest.approx(statistics.fmean(values))
    assert metric["low"] < metric["mean"] < metric["high"]
    assert summary["metrics"]["test/accuracy_constant"]["note"] == "the same in every seed"


def test_the_summary_for_people_names_runs_and_metrics(two_seeds):
    (file,) = (two_seeds / "hello").glob("seeds-*.md")
    text = file.read_text()
    values = _summary(two_seeds)["metrics"]["test/accuracy"]["values"]
    row = next(line for line in text.splitlines() if line.startswith("| test/accuracy |"))
    assert f"| {min(values):.4g} to {max(values):.4g} | 2 |" in row and "lowest to highest seed" in text
    assert all(r["folder"] in text for r in _summary(two_seeds)["runs"])


def test_the_same_command_runs_nothing_again_and_a_third_seed_only_itself(two_seeds, capsys):
    before = {r.path for r in all_runs(two_seeds)}
    assert _run(two_seeds, "--seeds", "3,4") == 0
    assert {r.path for r in all_runs(two_seeds)} == before
    assert capsys.readouterr().err.count("done before, skipped") == 4


def test_out_of_time_stops_between_seeds_with_the_status_of_a_stopped_run(tmp_path, capsys):
    assert _run(tmp_path, "--seeds", "0,1", "--max-time", "0.01s") == 75
    assert "0 of 2 seeds done" in capsys.readouterr().err
    assert len(list(all_runs(tmp_path))) == 1 and not list(tmp_path.rglob("seeds-*"))


def test_the_interval_is_students():
    # n = 5, t(0.975, 4) = 2.776; checked by hand
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def test_what_people_are_shown_of_a_fraction_stays_within_0_and_1():
    values = [0.0, 0.05, 0.6]
    low, high = interval(values)
    metric = {"mean": 0.22, "std": 0.33, "low": low, "high": high, "n": 3, "values": values, "note": ""}
    assert low < 0 and high > 1  # what the normal distribution says of three values
    assert "| 0 to 0.6 | 3 |" in metric_table({"test/accuracy": metric})


def test_a_metric_that_a_seed_lacks_or_has_as_nan_is_said_and_left_out_of_the_mean(two_seeds, tmp_path):
    runs = []
    for number, (run, metrics) in enumerate(zip(all_runs(two_seeds), ({"a": 1.0, "b": None}, {"b": 3.0}), strict=True)):
        record = json.loads((run.path / "record.json").read_text())
        table = {"title": "controls", "columns": ["what", "accuracy"], "rows": [["soup", 0.25 + number / 2]]}
        record["stages"][1]["tables"] = [table]
        folder = tmp_path / "hello" / str(number)
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({**record, "metrics": metrics}))
        runs.append(RunFolder(folder))
    summary = json.loads(write_summary(resolve("hello"), runs, RunOptions(tmp_path)).read_text())
    a = summary["metrics"]["a"]
    assert (a["mean"], a["std"], a["low"], a["n"], a["values"]) == (1.0, None, None, 1, [1.0, None])
    assert a["note"] == "missing in seed 4"
    assert summary["metrics"]["b"]["note"] == "not finite in seed 3" and summary["metrics"]["b"]["mean"] == 3.0
    assert summary["tables"][0]["rows"] == [["soup", "0.5 ± 0.35"]]


@pytest.mark.parametrize("seeds", ["1", "1,1", "a,b", "-1,2"])
def test_seeds_that_make_no_sense_are_refused_before_anything_runs(seeds, tmp_path):
    assert _run(tmp_path, f"--seeds={seeds}") == 2
    assert not list(tmp_path.iterdir())


def test_two_seeds_of_one_experiment_have_different_digests_even_where_only_a_command_uses_the_seed(tmp_path):
    file = tmp_path / "bench.yaml"
    file.write_text("stages: [{name: only, verb: command, command: bench overhead, overrides: {pairs: 1}}]\n")
    other = tmp_path / "other.yaml"
    other.write_text("seed_everything: 1\nbase: bench.yaml\n")
    assert resolve(str(file)).digest() != resolve(str(other)).digest()
