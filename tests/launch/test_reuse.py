"""A new run takes finished leading stages from an earlier one, and only where nothing that decides them has changed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from fulgurite.launch.config.experiment import Experiment, resolve
from fulgurite.launch.config.settings import Leaf
from fulgurite.launch.stages import reuse, run_folder
from fulgurite.launch.stages.run_folder import RunFolder, choose, code_digest, inputs_digest

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


def begin(experiment: Experiment, root: Path, new: bool) -> RunFolder:
    """A run that is chosen and, as if its process had died then, worked on no more."""
    with choose(experiment, root, new) as run:
        return run


def finish(run: RunFolder, experiment: Experiment, *names: str) -> None:
    """Leave a run as the stage runner leaves it after these stages."""
    for stage in experiment.stages:
        if stage.name in names:
            (run.path / stage.name).mkdir(exist_ok=True)
            (run.path / stage.name / "weights").write_text(f"{run.path.name} {stage.name}")
            run.stage(stage.name).update(
                state="done",
                digest=stage.digest(experiment.seed),
                inputs=inputs_digest(stage),
                code=code_digest(),
                files=["weights"],
            )
    run.save()


def test_a_change_to_the_last_stage_keeps_the_first_two(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    changed = begin(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert changed.path != donor.path
    states = {n: s["state"] for n, s in changed.state["stages"].items()}
    assert states == {"first": "done", "second": "done", "third": "pending"}
    assert changed.stage("second")["reused_from"] == donor.path.name
    assert (changed.path / "second" / "weights").read_text() == f"{donor.path.name} second"
    assert not (changed.path / "third").exists()


def test_what_was_taken_over_outlives_the_run_it_came_from(experiment_file: Path, tmp_path: Path) -> None:
    import shutil

    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    changed = begin(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    shutil.rmtree(donor.path)
    assert (changed.path / "first" / "weights").is_file()


@pytest.mark.parametrize("flag", ["first__model__width", "seed_everything"])
def test_a_change_that_reaches_the_first_stage_keeps_nothing(experiment_file: Path, tmp_path: Path, flag: str) -> None:
    whole = resolved(experiment_file)
    finish(begin(whole, tmp_path / "runs", False), whole, "first", "second", "third")
    changed = begin(resolved(experiment_file, **{flag: 3}), tmp_path / "runs", False)
    assert all(s["state"] == "pending" for s in changed.state["stages"].values())


def test_another_experiment_s_run_gives_the_stages_that_are_the_same(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    child = tmp_path / "child.yaml"
    child.write_text(
        "base: three.yaml\nstages:\n- {name: first, experiment: hello}\n- {name: other, experiment: hello}\n"
    )
    begun = begin(resolved(child), tmp_path / "runs", False)
    assert begun.path.parent.name == "child" and begun.stage("first")["reused_from"] == donor.path.name
    assert begun.stage("other")["state"] == "pending"


def test_a_stage_with_a_seed_of_its_own_is_kept_for_other_seeds(experiment_file: Path, tmp_path: Path) -> None:
    experiment_file.write_text(STAGED + "first: {seed_everything: 0}\nsecond: {data: {seed: '${seed}'}}\n")
    whole = resolved(experiment_file, seed_everything=0)
    finish(begin(whole, tmp_path / "runs", False), whole, "first", "second", "third")
    changed = begin(resolved(experiment_file, seed_everything=3), tmp_path / "runs", False)
    assert [n for n, s in changed.state["stages"].items() if s["state"] == "done"] == ["first"]


def test_a_stage_that_names_the_run_s_seed_is_the_one_with_that_number(experiment_file: Path) -> None:
    named, written = (
        resolved(experiment_file, first__seed_everything=0, first__data__seed=value, seed_everything=5).stages[0]
        for value in ("${seed}", 5)
    )
    assert named.digest(5) == written.digest(5) == written.digest(6) != named.digest(6)


def test_other_code_or_new_keeps_nothing(experiment_file: Path, tmp_path: Path) -> None:
    whole, other = resolved(experiment_file), resolved(experiment_file, third__model__width=3)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second")
    afresh = begin(other, tmp_path / "runs", True)
    assert all(s["state"] == "pending" for s in afresh.state["stages"].values())
    donor.stage("first")["code"] = "another"
    donor.save()
    changed = begin(resolved(experiment_file, third__model__width=4), tmp_path / "runs", False)
    assert all(s["state"] == "pending" for s in changed.state["stages"].values())


def test_a_stage_that_did_not_end_well_is_not_taken(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "third")
    donor.stage("second")["state"] = "failed"
    donor.save()
    changed = begin(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert [n for n, s in changed.state["stages"].items() if s["state"] == "done"] == ["first"]


def test_a_stage_whose_files_were_deleted_is_not_taken(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    (donor.path / "second" / "weights").unlink()
    changed = begin(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert [n for n, s in changed.state["stages"].items() if s["state"] == "done"] == ["first"]


def test_hidden_files_and_wandb_s_own_are_no_files_of_a_stage(tmp_path: Path) -> None:
    for name in ("weights/last.ckpt", "metrics.csv", ".metrics.csv.7.tmp", "wandb/run-1/log", "weights/.cache/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert reuse.files_of(tmp_path) == ["metrics.csv", "weights/last.ckpt"]


def test_the_code_of_the_stage_counts_not_the_code_that_began_the_run(experiment_file: Path, tmp_path: Path) -> None:
    whole = resolved(experiment_file)
    donor = begin(whole, tmp_path / "runs", False)
    finish(donor, whole, "first", "second", "third")
    donor.state["code"] = "another"  # the run began with other code, and was taken up again with the code of now
    donor.stage("second")["code"] = "another"
    donor.save()
    changed = begin(resolved(experiment_file, third__model__width=3), tmp_path / "runs", False)
    assert [n for n, s in changed.state["stages"].items() if s["state"] == "done"] == ["first"]


def test_a_take_over_that_is_killed_leaves_a_run_that_begins_at_the_first_stage(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = resolved(experiment_file), resolved(experiment_file, third__model__width=3)
    finish(begin(whole, tmp_path / "runs", False), whole, "first", "second", "third")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reuse, "_link", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(other, tmp_path / "runs", False)
    (cut,) = (r for r in run_folder.all_runs(tmp_path / "runs") if r.state["digest"] == other.digest())
    assert not cut.finished and not (cut.path / "first").exists()
    monkeypatch.undo()
    again = begin(other, tmp_path / "runs", False)
    assert again.path == cut.path and all(s["state"] == "pending" for s in again.state["stages"].values())


def test_a_changed_file_in_a_folder_or_deep_in_a_list_is_a_changed_input(experiment_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    inner = tmp_path / "data" / "a.txt"
    inner.write_text("1")
    for value in (str(tmp_path / "data"), [{"deep": {"files": [str(inner)]}}]):
        stage = resolve("hello", [(("trainer", "plugins"), Leaf(value, "--trainer.plugins"))]).stages[0]
        before, size = inputs_digest(stage), inner.stat().st_size
        with inner.open("a") as file:  # in place: the folder's own time stays
            file.write("2")
        assert inner.stat().st_size > size and inputs_digest(stage) != before


def test_the_code_digest_covers_what_plugins_and_allowed_packages_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("some_plugin", "allowed_one"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "parts.py").write_text("a = 1\n")
    point = importlib.metadata.EntryPoint("some", "some_plugin", "fulgurite.plugins")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (point,))
    monkeypatch.setenv("FULGURITE_ALLOW_IMPORTS", "allowed_one, nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    seen = {code_digest()}
    for name in ("some_plugin", "allowed_one"):
        (tmp_path / name / "parts.py").write_text("a = 2\n")
        seen.add(code_digest())
    assert len(seen) == 3
