"""Records as parquet in the released form, demonstrations as JSON, and what is said of files that are neither."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from fulgurite.datamodules.viki.checker import check_plan
from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.datamodules.viki.records import demonstration, read_demonstrations, read_records, write_records
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def records():
    return [
        replace(draw_record(2, "heldout_family", i, seed=0), images=(b"\xff\xd8picture",), views=("global",))
        for i in range(6)
    ]


@pytest.mark.parametrize("level", [1, 2])
def test_written_and_read_again(tmp_path, level):
    written = [draw_record(level, "heldout_family", i, seed=0) for i in range(4)]
    file = tmp_path / "part.parquet"
    write_records(file, written)
    read = read_records(file)
    assert [(r.key, r.family, r.instruction, r.system) for r in read] == [
        (r.key, r.family, r.instruction, r.system) for r in written
    ]
    assert [r.scene for r in read] == [r.scene for r in written]
    if level == 2:
        assert all(check_plan(r.problem, r.answer(), strict=True).ok for r in read)
    else:
        assert [r.ground_truth for r in read] == [r.ground_truth for r in written]
    first = file.read_bytes()
    write_records(file, written)
    assert file.read_bytes() == first


def test_rows_have_the_released_columns_and_null_padded_dicts(tmp_path, records):
    write_records(tmp_path / "part.parquet", records)
    row = parquet.read_table(tmp_path / "part.parquet").to_pylist()[0]
    assert list(row)[:5] == ["images", "data_source", "prompt", "ability", "reward_model"]
    assert row["data_source"] == "viki_2" and row["images"] == [{"bytes": b"\xff\xd8picture", "path": None}]
    assert [m["role"] for m in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"].startswith("<image>") and "<image>" not in records[0].instruction
    truth = row["reward_model"]["ground_truth"]
    assert truth["robots"]["R3"] is None and truth["init_pos"]["apple_0"] is None
    assert truth["goal_constraints"][0][0]["status"]["is_activated"] is None
    assert row["reward_model"]["style"] == "rule"


def test_a_released_row_without_our_extras_is_read(tmp_path, records):
    rows = [record.to_row() for record in records]
    for row in rows:
        del row["extra_info"]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    read = read_records(tmp_path / "test.parquet", limit=3)
    assert len(read) == 3 and read[0].family == records[0].family and read[0].scene is None
    assert check_plan(read[0].problem, read[0].answer()).ok


def test_what_is_no_record_is_told_with_file_and_row(tmp_path, records):
    with pytest.raises(UserError, match="no parquet file there"):
        read_records(tmp_path / "missing")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="can't be read as parquet"):
        read_records(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"question": ["?"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b.parquet, row 0: no field 'data_source'"):
        read_records(tmp_path / "b.parquet")
    row = records[0].to_row()
    row["extra_info"] = {"schema_version": 9}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "c.parquet")
    with pytest.raises(UserError, match="schema_version 9; this program reads 1"):
        read_records(tmp_path / "c.parquet")


def test_demonstrations_go_there_and_back(tmp_path, records):
    file = tmp_path / "VIKI_L2.json"
    file.write_text(json.dumps([demonstration(r, "I think.", [f"{r.key}.jpg"]) for r in records]))
    read = read_demonstrations(file)
    assert [d.instruction for d in read] == [r.instruction for r in records]
    assert all(check_plan(r.problem, d.response).ok for r, d in zip(records, read, strict=True))
    file.write_text(json.dumps([{"messages": []}]))
    with pytest.raises(UserError, match=r"VIKI_L2.json, row 0: no list of"):
        read_demonstrations(file)


def test_released_demonstrations_load(released):
    sizes = {n: len(read_demonstrations(released / "cot" / f"VIKI_L{n}.json.xz")) for n in (1, 2, 3)}
    assert min(sizes.values()) > 50
