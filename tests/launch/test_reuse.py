"""A new run takes finished leading stages from an earlier one, and only where nothing that decides them has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.launch.experiment import Experiment, resolve
from fulgurite.launch.run_folder import RunFolder, choose, inputs_digest
from fulgurite.launch.settings import Leaf

STAGED = """\
stages:
- {name: first, experiment: hello}
- {name: second, experiment: hello}
- {name: third, experiment: hello}
"""


@pytest.fixture
def experiment_file(tmp_path: Path) -> Path:
    file = tmp_path / "three.yaml"
    file.write_text(STAGED)
    return file


def resolved(file: Path, **flags: object) -> Experiment:
    return resolve(str(file), [(tuple(k.split("__")), Leaf(v, f"--{k}")) for k, v in flags.items()])


def finish(run: RunFolder, experiment: Experiment, *names: str) -> None:
    """Leave a run as the stage runner leaves it after these stages."""
    for stage in experiment.stages:
        if stage.name in names:
            (run.path / stage.name).mkdir(exist_ok=True)
            (run.path / stage.name / "weights").write_text(f"{run.path.name} {stage.name}")
            run.stage(stage.name).update(state="done", digest=stage.digest(), inputs=inputs_digest(stage))
    run.save()


def test_a_change_to_the_last_stage_keeps_the_first_two(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = choose(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    changed = choose(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert changed.path != donor.path
    states = {n: s["state"] for n, s in changed.state["stages"].items()}
    assert states == {"first": "done", "second": "done", "third": "pending"}
    assert changed.stage("second")["reused_from"] == donor.path.name
    assert (changed.path / "second" / "weights").read_text() == f"{donor.path.name} second"
    assert not (changed.path / "third").exists()


def test_what_was_taken_over_outlives_the_run_it_came_from(experiment_file: Path, tmp_path: Path) -> None:
    import shutil

    whole = resolved(experiment_file)
    donor = choose(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    changed = choose(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    shutil.rmtree(donor.path)
    assert (changed.path / "first" / "weights").is_file()


@pytest.mark.parametrize("flag", ["first__model__width", "seed_everything"])
def test_a_change_that_reaches_the_first_stage_keeps_nothing(experiment_file: Path, tmp_path: Path, flag: str) -> None:
    whole = resolved(experiment_file)
    finish(choose(whole, tmp_path / "runs", False), whole, "first", "second", "third")
    changed = choose(resolved(experiment_file, **{flag: 3}), tmp_path / "runs", False)
    assert all(s["state"] == "pending" for s in changed.state["stages"].values())


def test_other_code_or_new_keeps_nothing(experiment_file: Path, tmp_path: Path) -> None:
    whole, other = resolved(experiment_file), resolved(experiment_file, third__model__width=3)
    donor = choose(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second")
    afresh = choose(other, tmp_path / "runs", True)
    assert all(s["state"] == "pending" for s in afresh.state["stages"].values())
    donor.state["code"] = "another"
    donor.save()
    changed = choose(resolved(experiment_file, third__model__width=4), tmp_path / "runs", False)
    assert all(s["state"] == "pending" for s in changed.state["stages"].values())


def test_a_stage_that_did_not_end_well_is_not_taken(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = choose(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "third")
    donor.stage("second")["state"] = "failed"
    donor.save()
    changed = choose(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert [n for n, s in changed.state["stages"].items() if s["state"] == "done"] == ["first"]
