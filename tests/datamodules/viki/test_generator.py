"""Generated records: the same from the same seed, gold that is right, splits that keep apart what they say."""

from __future__ import annotations

import ast

import pytest

from fulgurite.datamodules.viki.checker import check_plan
from fulgurite.datamodules.viki.families import activation, capable, families
from fulgurite.datamodules.viki.generator import (
    HELDOUT_LAYOUTS,
    HELDOUT_STYLES,
    SPLITS,
    draw_record,
    draw_task,
    fillings,
)
from fulgurite.datamodules.viki.scene_description import SceneDescription
from fulgurite.datamodules.viki.thoughts import thoughts
from fulgurite.datamodules.viki.vocabulary import objects, places, robots

NUM = 40


@pytest.fixture(scope="module")
def tasks():
    return {split: [draw_task(split, i, seed=1) for i in range(NUM)] for split in SPLITS}


def test_a_record_depends_on_seed_split_and_number_alone(tasks):
    for index in (7, 3):
        assert draw_task("train", index, seed=1).truth == tasks["train"][index].truth
        assert draw_task("train", index, seed=1).scene == tasks["train"][index].scene
    assert draw_task("train", 3, seed=2).truth != tasks["train"][3].truth
    other = draw_task("train", 3, seed=1, attempt=1)
    assert other.scene != tasks["train"][3].scene and other.team == tasks["train"][3].team


def test_gold_passes_both_checkers(tasks):
    for task in (t for found in tasks.values() for t in found):
        for strict in (False, True):
            assert check_plan(task.truth, task.truth["time_steps"], strict=strict).ok


def test_splits_keep_apart_what_they_say(tasks):
    for split, found in tasks.items():
        for task in found:
            scene = task.scene
            assert (scene.layout in HELDOUT_LAYOUTS) == (scene.style in HELDOUT_STYLES) == (split == "heldout_scene")
            assert (task.family.number == 11) == (split == "heldout_family")
            pair = {"stompy", "fetch"}.issubset(task.team.values())
            assert pair == (split == "heldout_pair")
    for name in families():
        trained, tested = fillings(name, "train"), fillings(name, "test")
        if len(families()[name].fillings()) >= 10:
            assert not {tuple(f.values()) for f in trained} & {tuple(f.values()) for f in tested}
            assert len(trained) > 2 * len(tested) > 0
        else:
            assert trained == tested


def test_the_picture_holds_what_the_task_speaks_of(tasks):
    for task in (t for found in tasks.values() for t in found):
        scene = task.scene
        shown = {item.name: item.place for item in scene.objects if item.needed}
        assert {name for name in task.starts if name in objects()} == set(shown)
        assert [r.name for r in scene.robots] == [*task.team.values(), *task.idle]
        assert {n for n, p in shown.items() if p == "cabinet"} == set(scene.cabinet)
        assert set(scene.fixtures) <= set(places())
        clutter = {item.name for item in scene.objects if not item.needed}
        assert not clutter & {*task.filling.values(), *task.starts}
        assert all(0 < item.pose.u < 1 and 0 < item.pose.v < 1 for item in (*scene.objects, *scene.robots))
        assert SceneDescription.from_dict(scene.to_dict()) == scene


def test_sub_families_that_share_their_wording_differ_in_the_picture_alone():
    by_wording = {}
    for family in families().values():
        by_wording.setdefault((family.wordings, family.roles), []).append(family)
    shared = [sorted(f.name for f in found) for found in by_wording.values() if len(found) > 1]
    assert ["10-1", "10-2"] in shared and ["11-1", "11-2", "11-3"] in shared and ["12-1", "12-2"] in shared


def test_level_1_gold_is_who_is_able():
    assert capable(families()["1-1"].steps, "A") == {"fetch", "unitree_h1", "stompy"}
    assert capable(families()["5-1"].steps, "A") == {"unitree_h1", "stompy"}  # opens with one hand full
    assert capable(families()["13-1"].steps, "A") == {r.name for r in robots().values() if r.kind != "arm"}
    for index in range(NUM):
        task, record = draw_task("train", index, seed=1), draw_record(1, "train", index, seed=1)
        assert ast.literal_eval(record.ground_truth) == sorted(task.team.values())
    with pytest.raises(ValueError, match="2 ways to choose among fetch, stompy"):
        activation(families()["1-1"], ["fetch", "stompy"])


def test_thoughts_tell_what_decides():
    tables = {}
    for index in range(60):
        record = draw_record(2, "heldout_family", index, seed=1)
        tables.setdefault(record.family, thoughts(record).splitlines()[0])
    assert "On the table: bowl." in tables["11-1"] and "On the table: plate." in tables["11-2"]
    assert "The table is empty." in tables["11-3"]
