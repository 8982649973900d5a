"""`fulgurite viki generate`, `check` and `show`, and the DataModule that reads what they write."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy
import pytest
from filelock import FileLock

from fulgurite.cli import main
from fulgurite.datamodules.viki.encoding import encode
from fulgurite.datamodules.viki.generate import PART_RECORDS
from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule
from fulgurite.datamodules.viki.records import read_demonstrations, read_records, write_records
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("viki")
    arguments = ["--num", str(PART_RECORDS + 2), "--num_test", "2", "--pictures", "false", "--demonstrations", "3"]
    assert main(["viki", "generate", str(out), *arguments]) == 0
    return out, arguments


def test_a_data_set_is_made_in_parts_and_gone_on_with(data, capsys):
    out, arguments = data
    parts = sorted(out.glob("train/*.parquet"))
    assert [len(read_records(part)) for part in parts] == [PART_RECORDS, 2]
    assert [r.index for r in read_records(out / "train")] == list(range(PART_RECORDS + 2))
    before = [part.read_bytes() for part in parts]
    parts[0].unlink()
    assert main(["viki", "generate", str(out), *arguments]) == 0
    assert [part.read_bytes() for part in parts] == before
    assert f"{PART_RECORDS} records in" in capsys.readouterr().out
    assert main(["viki", "generate", str(out), *arguments, "--seed", "5"]) == 2
    assert "made with another seed" in capsys.readouterr().err
    assert json.loads((out / "results.json").read_text())["metrics"]["records/heldout_pair"] == 2
    assert len(read_demonstrations(out / "cot" / "VIKI_L2.json")) == 3


def test_what_is_held_out_can_be_drawn_for_training(tmp_path, capsys):
    command = ["viki", "generate", str(tmp_path / "pair"), "--num", "9", "--num_test", "6", "--pictures", "false"]
    assert main([*command, "--like", "heldout_pair"]) == 0
    found = {split: read_records(tmp_path / "pair" / split) for split in ("train", "val", "test")}
    assert {f.name for f in (tmp_path / "pair").iterdir() if f.is_dir()} == set(found)
    for records in found.values():
        assert all(set(record.problem.types) == {"stompy", "fetch"} for record in records)
    assert found["val"][0].instruction != found["test"][0].instruction or found["val"][1] != found["test"][1]
    assert main([*command, "--like", "heldout_par"]) == 2
    assert "held-out splits: heldout_scene heldout_family heldout_pair" in capsys.readouterr().err
    assert main(command) == 2
    assert "made with another" in capsys.readouterr().err


def test_gold_is_right_and_a_wrong_plan_is_told_why(data, tmp_path, capsys):
    out, _ = data
    lines = [json.dumps({"record": r.key, "answer": r.answer()}) for r in read_records(out / "test")]
    (tmp_path / "gold.jsonl").write_text("\n".join(lines))
    assert main(["viki", "check", str(out / "test"), str(tmp_path / "gold.jsonl"), "--strict", "true"]) == 0
    assert "2 of 2 right; mean reward 1.000" in capsys.readouterr().out
    (tmp_path / "plan.txt").write_text('[{"step": 1, "actions": {"R1": ["Fly", "R1"]}}]')
    report = tmp_path / "report.json"
    assert (
        main(["viki", "check", str(out / "test"), str(tmp_path / "plan.txt"), "--record", "1", "--out", str(report)])
        == 1
    )
    assert "cannot fly" in capsys.readouterr().out
    assert json.loads(report.read_text())["verdicts"][0]["code"] == "ACTION_NOT_FEASIBLE"
    assert main(["viki", "check", str(out / "test"), str(tmp_path / "plan.txt"), "--record", "9"]) == 2
    assert "no record '9'\nnumbers: 0 to 1; keys such as test-000000" in capsys.readouterr().err


def test_a_record_becomes_one_page_with_a_drawing_a_step(data, tmp_path):
    out, _ = data
    record = read_records(out / "train")[0]
    page = tmp_path / "page.html"
    assert main(["viki", "show", str(out / "train"), "--out", str(page), "--strict", "true"]) == 0
    text = page.read_text()
    num_steps = len(record.ground_truth["time_steps"])
    assert text.count("<svg") == num_steps + 1 and f"in {num_steps} steps" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    (tmp_path / "plan.txt").write_text('[{"actions": {"R1": ["Move", "<script>"]}}]')
    assert main(["viki", "show", str(out / "train"), "--plan", str(tmp_path / "plan.txt"), "--out", str(page)]) == 0
    assert "INVALID_COMMAND" in page.read_text() and "<script>" not in page.read_text()
    (tmp_path / "plan.txt").write_text(str([{"actions": {}}, *record.ground_truth["time_steps"]]))
    shown = ["viki", "show", str(out / "train"), "--plan", str(tmp_path / "plan.txt"), "--out", str(page)]
    assert main([*shown, "--strict", "true"]) == 0
    assert page.read_text().count("<svg") == num_steps + 2, "waiting is a step under the strict rules"
    (tmp_path / "plan.txt").write_bytes(b"\xff\xfe")
    assert main(shown) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--level", "l9"], "no level 'l9'"),
        (["--views", "some"], "no views 'some'"),
        (["--size", "big"], "size 'big' is not WIDTHxHEIGHT, such as 600x336"),
        (["--num", "0"], "must be positive"),
        (["--demonstrations", "9000"], "demonstrations: from 0 to num"),
    ],
)
def test_mistakes_are_told(arguments, says, tmp_path, capsys):
    assert main(["viki", "generate", str(tmp_path / "data"), *arguments]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_the_data_module_serves_both_stages(data):
    folder = str(data[0])
    module = VikiTrajectoryDataModule(folder, batch_size=4, num_batches=2, seed=3)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert [len(b["record"]) for b in batches] == [4, 4]
    again = VikiTrajectoryDataModule(folder, batch_size=4, num_batches=2, seed=3, stage="rl", limit=50)
    assert [r.key for b in batches for r in b["record"]] == [
        r.key for b in VikiTrajectoryDataModule(folder, 4, 2, seed=3).train_dataloader() for r in b["record"]
    ]
    for response, record in zip(batches[0]["response"], batches[0]["record"], strict=True):
        assert response.startswith("<think>\nThe picture shows") and record.answer() in response
    assert next(iter(again.train_dataloader()))["response"] == [""] * 4
    assert len(again.records("train")) == 50
    answers = VikiTrajectoryDataModule(folder, 4, 2, with_thoughts=False, test_split="heldout_pair")
    assert next(iter(answers.test_dataloader()))["response"][0].startswith("<answer>[")
    with pytest.raises(UserError, match="no parquet file there"):
        VikiTrajectoryDataModule(folder, test_split="nothing").setup("test")


def test_a_picture_cut_short_is_told(tmp_path):
    record = draw_record(2, "heldout_family", 0, seed=0)
    picture = encode(numpy.zeros((32, 32, 3), numpy.uint8))
    write_records(tmp_path / "train.parquet", [replace(record, images=(picture,))])
    whole = VikiTrajectoryDataModule(str(tmp_path), 1, 1)
    assert next(iter(whole.train_dataloader()))["images"][0][0].shape == (32, 32, 3)
    assert next(iter(VikiTrajectoryDataModule(str(tmp_path), 1, 1, blind=True).train_dataloader()))["images"] == [[]]
    write_records(tmp_path / "train.parquet", [replace(record, images=(picture[:40],))])
    with pytest.raises(UserError, match="a record's picture can't be read"):
        VikiTrajectoryDataModule(str(tmp_path), 1, 1).setup("fit")


def test_level_3_answers_are_measured_against_the_best_constant(tmp_path, capsys):
    """The right path has skill 1, the mean of all right paths 0; an answer that can't be read gains nothing."""
    paths = [[[[k, k + up] for k in range(5)], [[k + up, 0] for k in range(5)]] for up in (0, 40)]
    first = draw_record(2, "test", 0, seed=0)
    records = [replace(first, level=3, index=n, ground_truth=str(p), scene=None) for n, p in enumerate(paths)]
    write_records(tmp_path / "l3.parquet", records)
    mean = [[[k, k + 20] for k in range(5)], [[k + 20, 0] for k in range(5)]]
    for answers, says in (
        (paths, "RMSE 0.0 px, of the mean of the right paths 14.1 px; skill 1.00, sharp score 1.000"),
        ([mean, mean], "skill 0.00"),
        ([paths[0], "nothing"], "RMSE 7.1 px, of the mean of the right paths 14.1 px; skill 0.50, sharp score 0.500"),
    ):
        (tmp_path / "answers.jsonl").write_text("\n".join(json.dumps({"answer": a}) for a in answers))
        main(["viki", "check", str(tmp_path / "l3.parquet"), str(tmp_path / "answers.jsonl")])
        assert says in capsys.readouterr().out


def test_a_folder_at_work_or_of_something_else_is_left_alone(tmp_path, capsys):
    with FileLock(tmp_path / ".lock"):
        assert main(["viki", "generate", str(tmp_path), "--num", "1", "--pictures", "false"]) == 2
    assert f"another viki generate is at work in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "dataset.json").write_text("[]")
    assert main(["viki", "generate", str(tmp_path), "--num", "1", "--pictures", "false"]) == 2
    assert "does not tell a data set's settings" in capsys.readouterr().err
