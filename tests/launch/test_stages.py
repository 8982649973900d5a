"""The stage runner: its further processes, what it leaves while it runs and when it can't begin, a full disk."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fulgurite
from fulgurite.cli import main
from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.config.settings import Leaf
from fulgurite.launch.records.record import git_state, of_the_test, write_record
from fulgurite.launch.stages import estimate, lightning_stage, run_folder, runner
from fulgurite.launch.stages.estimate import took
from fulgurite.launch.stages.ranks import JOIN_VARIABLE
from fulgurite.launch.stages.run_folder import RunFolder, all_runs, choose, code_digest
from fulgurite.launch.stages.runner import RunOptions, run_experiment
from fulgurite.registry import UserError

QUICK = {"trainer__max_epochs": 1, "data__num_batches": 2, "model__width": 2}


def _hello(seed: int = 0) -> Any:
    flags = [(tuple(k.split("__")), Leaf(v, f"--{k}")) for k, v in QUICK.items()]
    return resolve("hello", [*flags, (("seed_everything",), Leaf(seed, "--seeds"))])


def _record(root: Path) -> dict[str, Any]:
    (file,) = root.rglob("record.json")
    return dict(json.loads(file.read_text()))


def begin(experiment: Any, root: Path, new: bool) -> RunFolder:
    """A run that is chosen and, as if its process had died then, worked on no more."""
    with choose(experiment, root, new) as run:
        return run


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lightning stages that only note that they were run: verb and seed."""
    seen: list[str] = []

    def stage(verb: str, settings: Any, folder: Path, *_: object) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        seen.append(f"{verb} {settings.get('seed_everything')}")
        return "done"

    monkeypatch.setattr(lightning_stage, "run_lightning_stage", stage)
    return seen


def test_a_further_process_skips_what_the_first_one_ran_before_and_joins_its_stage(tmp_path, monkeypatch, pretended):
    first, second = _hello(0), _hello(1)
    done = run_experiment(first, RunOptions(tmp_path))
    begun = begin(second, tmp_path, new=False)
    pretended.clear()
    monkeypatch.setenv(JOIN_VARIABLE, f"{second.digest()}::fit::{begun.path}")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_experiment(first, RunOptions(tmp_path)).path == done.path and not pretended
    with pytest.raises(SystemExit) as left:
        run_experiment(second, RunOptions(tmp_path))
    assert left.value.code == 0 and pretended == ["fit 1"]


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "4"}, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}])
def test_several_processes_that_neither_torchrun_nor_srun_has_started_are_refused(
    environment, tmp_path, monkeypatch, capsys
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "hello", "--output", str(tmp_path / "runs")]) == 2
    text = capsys.readouterr().err
    assert "--trainer.devices N" in text and "has not started this process" in text
    assert not list(tmp_path.iterdir())


def test_one_process_under_a_launcher_and_an_interactive_shell_of_slurm_run(tmp_path, monkeypatch, pretended):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert run_experiment(_hello(), RunOptions(tmp_path)).finished


def test_a_run_has_settings_and_a_record_from_its_first_moment(tmp_path, monkeypatch):
    seen: list[dict[str, Any]] = []

    def stage(verb: str, settings: Any, folder: Path, *_: object) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        seen.append(_record(tmp_path))
        assert (folder.parent / "resolved.json").is_file()
        return "done"

    monkeypatch.setattr(lightning_stage, "run_lightning_stage", stage)
    run_experiment(_hello(), RunOptions(tmp_path, command="typed"))
    assert [r["status"] for r in seen] == ["running", "running"] and seen[0]["command"] == "typed"
    record = _record(tmp_path)
    assert record["status"] == "done"
    for stage_record in record["stages"]:
        assert (stage_record["code"], stage_record["git"]) == (code_digest(), git_state())


def test_a_refusal_before_the_first_stage_is_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="GB free, the run needs"):
        run_experiment(_hello(), RunOptions(tmp_path))
    record = _record(tmp_path)
    assert record["status"] == "failed" and "GB free, the run needs" in record["error"]


def test_a_run_that_another_process_finished_meanwhile_is_skipped(tmp_path, monkeypatch, pretended):
    experiment = _hello()
    stale = begin(experiment, tmp_path, new=False)
    run_experiment(experiment, RunOptions(tmp_path))
    before = len(pretended)
    monkeypatch.setattr(run_folder, "all_runs", lambda *_: [stale])  # seen before the other one ended
    assert run_experiment(experiment, RunOptions(tmp_path)).finished
    assert len(pretended) == before


def test_a_full_disk_hides_no_error_and_is_told_by_itself(tmp_path, monkeypatch, capsys):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def broken(*_: object) -> str:
        monkeypatch.setattr(runner, "write_record", full)
        raise ZeroDivisionError("in the model")

    monkeypatch.setattr(lightning_stage, "run_lightning_stage", broken)
    with pytest.raises(ZeroDivisionError):
        run_experiment(_hello(), RunOptions(tmp_path / "a"))
    assert capsys.readouterr().err.count("the run's record can't be written") == 1
    monkeypatch.undo()
    monkeypatch.setattr(lightning_stage, "run_lightning_stage", full)
    with pytest.raises(UserError, match="the disk is full"):
        run_experiment(_hello(), RunOptions(tmp_path / "b"))


def test_a_disk_that_is_full_before_the_run_begins_is_told_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    assert main(["run", "hello", "--output", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "can't be written: No space left on device\nFree some space, or choose another place" in told
    assert not list((tmp_path / "hello").iterdir())


def test_a_finished_stage_whose_files_were_deleted_runs_again(tmp_path, monkeypatch, capsys):
    seen: list[str] = []

    def stage(verb: str, settings: Any, folder: Path, *_: object) -> str:
        seen.append(verb)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text(verb)
        if verb == "test" and seen.count("test") == 1:
            raise UserError("the first test fails")
        return "done"

    monkeypatch.setattr(lightning_stage, "run_lightning_stage", stage)
    with pytest.raises(UserError, match="the first test fails"):
        run_experiment(_hello(), RunOptions(tmp_path))
    (cut,) = all_runs(tmp_path)
    (cut.path / "fit" / "b.txt").unlink()
    capsys.readouterr()
    whole = run_experiment(_hello(), RunOptions(tmp_path))
    assert seen == ["fit", "test", "fit", "test"] and whole.finished and whole.path != cut.path
    assert f"{cut.path}: files of its finished stage fit are gone (b.txt); a new run begins" in capsys.readouterr().err
    assert (cut.path / "fit" / "a.txt").exists()  # what is left of the old run is left alone


def test_a_finished_run_whose_files_were_deleted_says_that_new_runs_it_afresh(tmp_path, pretended, capsys):
    run = run_experiment(_hello(), RunOptions(tmp_path))
    (run.path / "fit").rmdir()
    pretended.clear()
    assert run_experiment(_hello(), RunOptions(tmp_path)).path == run.path and not pretended
    assert "files of its finished stage fit are gone (fit/); --new runs it afresh" in capsys.readouterr().err


STALLING = """
import sys
import fulgurite.launch.stages.run_folder as run_folder
class Told(run_folder.FileLock):
    def release(self, force=False):
        held = self.is_locked
        super().release(force)
        if held and not self.is_locked:
            print("released", flush=True)
            sys.stdin.readline()
run_folder.FileLock = Told
from fulgurite.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_no_other_process_gets_in_between_the_taking_over_and_the_run(tmp_path, child_environment, parts, forked):
    quick = ["run", "hello", *(w for k, v in QUICK.items() for w in (f"--{k.replace('__', '.')}", str(v)))]
    assert forked(*quick, cwd=tmp_path).status == 0
    (run,) = all_runs(tmp_path)
    run.stage("test")["digest"] = "another"  # so that a new run takes over the fit alone
    run.state["digest"] = "another"
    run.save()
    first = subprocess.Popen(
        [sys.executable, "-c", STALLING, *quick],
        cwd=tmp_path, env=child_environment(**parts), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout and "released" in iter(first.stdout.readline, "").__next__()
    second = forked(*quick, cwd=tmp_path)  # where the first has let go of the run, it is over
    first.communicate("\n" * 9)
    assert first.returncode == 0 and second.status == 0, second.output
    assert second.output.count("skipped") == 2
    (new,) = (r for r in all_runs(tmp_path) if r.path != run.path)
    assert new.finished and new.stage("fit")["reused_from"] == run.path.name and new.stage("test")["attempts"] == 1


def test_a_stage_that_went_on_with_other_code_is_nobody_s_to_take_over(tmp_path, monkeypatch, pretended):
    experiment = _hello()
    run = begin(experiment, tmp_path, new=False)
    (run.path / "fit" / "checkpoints").mkdir(parents=True)
    (run.path / "fit" / "checkpoints" / "last.ckpt").touch()
    run.stage("fit").update(state="running", code="older")
    run.stage("test").update(state="running", code="older")  # begins anew
    run.save()
    done = run_experiment(experiment, RunOptions(tmp_path))
    assert (done.stage("fit")["code"], done.stage("test")["code"]) == ("several", code_digest())


def test_what_a_stage_writes_into_a_folder_that_it_names_is_no_changed_input(tmp_path, monkeypatch):
    outside = tmp_path / "outside.d"
    outside.mkdir()
    experiment = resolve("hello", [(("trainer", "default_root_dir"), Leaf(str(outside), "--trainer.default_root_dir"))])

    def stage(verb: str, settings: Any, folder: Path, *_: object) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        if verb == "fit":
            (outside / "notes").write_text("made by the stage")
        return "done"

    monkeypatch.setattr(lightning_stage, "run_lightning_stage", stage)
    first = run_experiment(experiment, RunOptions(tmp_path / "runs"))
    assert run_experiment(experiment, RunOptions(tmp_path / "runs")).path == first.path


def test_metrics_that_two_stages_share_keep_both_values(tmp_path):
    experiment = _hello()
    run = begin(experiment, tmp_path, new=True)
    for stage, metrics in {"fit": {"loss": 1.0, "a": 2.0}, "test": {"loss": 3.0}}.items():
        (run.path / stage).mkdir()
        (run.path / stage / "results.json").write_text(json.dumps({"schema_version": 1, "metrics": metrics}))
    write_record(run, experiment, "", None)
    assert _record(tmp_path)["metrics"] == {"fit/loss": 1.0, "a": 2.0, "test/loss": 3.0}


def test_a_test_s_metrics_are_known_with_and_without_their_stage():
    metrics = {"train/loss": 1.0, "test/a": 2.0, "again/test/b": 3.0, "latest/c": 4.0}
    assert list(of_the_test(metrics)) == ["test/a", "again/test/b"]


def test_the_record_of_a_call_from_python_shows_its_overrides(tmp_path, pretended):
    record = fulgurite.run("hello", output=tmp_path, model__width=3, **{"trainer.max_epochs": 2})
    assert record["command"] == "fulgurite.run('hello', model__width=3, **{'trainer.max_epochs': 2})"


def test_times_of_stages_taken_over_are_said_apart_and_are_no_estimate(tmp_path, pretended, capsys):
    assert took([{"seconds": 100.0, "reused_from": "x"}, {"seconds": 7.0}]) == (
        "7 s (and 1 min 40 s in stages taken over from an earlier run)"
    )
    run = run_experiment(_hello(), RunOptions(tmp_path))
    run.stage("fit")["reused_from"] = "another"
    run.save()
    run_experiment(_hello(1), RunOptions(tmp_path))
    assert "as the last run here" not in capsys.readouterr().err
    run_experiment(_hello(2), RunOptions(tmp_path))
    assert "as the last run here" in capsys.readouterr().err


def test_runs_that_were_killed_or_still_run_are_listed_shown_and_compared(tmp_path, monkeypatch, capsys, pretended):
    monkeypatch.setenv("COLUMNS", "200")
    whole = run_experiment(_hello(), RunOptions(tmp_path))
    cut = begin(_hello(1), tmp_path, new=False)  # killed before its first stage
    runner.write_resolved(cut, _hello(1))
    cut.stage("fit")["state"] = "running"
    cut.save()
    write_record(cut, _hello(1), "", None, running=True)

    def runs(*arguments: str) -> str:
        assert main(["runs", *arguments, "--output", str(tmp_path)]) == 0
        return capsys.readouterr().out

    capsys.readouterr()
    assert f"{cut.path.name}  killed" in runs("list")
    assert "killed; the report is written when the run ends" in runs("show", cut.path.name)
    with cut.lock():
        assert f"{cut.path.name}  running" in runs("list")
    assert "seed_everything" in runs("compare", whole.path.name, cut.path.name)
    (cut.path / "record.json").unlink()
    assert f"{cut.path.name}  killed" in runs("list") and "killed" in runs("show", cut.path.name)
    runs("clean")
    assert [r.path for r in all_runs(tmp_path)] == [whole.path]


def test_a_run_is_found_by_its_id_or_whole_parts_of_its_path_only(tmp_path):
    from fulgurite.launch.stages.past_runs import find_run

    run = begin(_hello(), tmp_path, new=True)
    name = run.path.name
    for said in (str(run.path), name, f"hello/{name}", name.rpartition("-")[2]):
        assert find_run(tmp_path, said).path == run.path
    for said in (name[-1], name[-3:], name[3:], ""):
        with pytest.raises(UserError, match="no run in"):
            find_run(tmp_path, said)


def test_a_headline_reaches_the_record_and_a_name_in_it_that_is_no_metric_is_told(tmp_path, capsys):
    quick = [w for k, v in QUICK.items() for w in (f"--{k.replace('__', '.')}", str(v))]
    assert main(["run", "hello", "--output", str(tmp_path), *quick, "--headline", "[test/accurac, test/accuracy]"]) == 0
    told = capsys.readouterr().out
    assert "`headline:` names 'test/accurac', which is no metric of this run. Did you mean 'test/accuracy'" in told
    assert _record(tmp_path)["headline"] == ["test/accurac", "test/accuracy"]
    assert main(["runs", "--output", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "accuracy " in listed and "accuracy_constant" not in listed
