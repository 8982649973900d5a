"""The commands around the scenes: a contact sheet, and pictures a second."""

import json

import pytest

from fulgurite.cli import main
from fulgurite.datamodules.viki.scenes import bench, contact_sheet


@pytest.mark.slow
def test_the_sheet_holds_every_robot_and_family(make_renderer, tmp_path, capsys, monkeypatch):
    from PIL import Image

    captions = []
    lay_out = contact_sheet._lay_out
    monkeypatch.setattr(contact_sheet, "_lay_out", lambda tiles: captions.extend(c for c, _ in tiles) or lay_out(tiles))
    assert main(["viki", "sheet", str(tmp_path / "made" / "sheet.png")]) == 0
    assert f"{len(captions)} pictures in" in capsys.readouterr().out and len(captions) % 6 == 0
    families = {caption.partition("-")[0] for caption in captions if caption.startswith("family")}
    assert families == {f"family {number}" for number in range(1, 14)}
    assert len(Image.open(tmp_path / "made" / "sheet.png").getcolors(2_000_000)) > 1000


def test_a_sheet_of_another_kind_is_refused(tmp_path, capsys):
    assert main(["viki", "sheet", str(tmp_path / "sheet.pdf")]) == 2
    assert "end it in .jpg or .png" in capsys.readouterr().err


def test_the_bench_writes_what_it_shows(make_renderer, tmp_path, capsys):
    file = tmp_path / "speed.json"
    assert main(["bench", "viki-scenes", "--scenes", "2", "--repeats", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found["views"]) == {
        "global view, 224x224", "own view, 224x224", "global view, 600x336", "own view, 600x336",
        "what can be seen, 600x336",
    }  # fmt: skip
    assert all(len(times["cpu_s"]) == 2 and min(times["cpu_s"]) > 0 for times in found["views"].values())
    assert "pictures/s" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--scenes", "--repeats"])
def test_a_bench_of_nothing_is_refused(flag, capsys):
    assert main(["bench", "viki-scenes", flag, "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_scenes_of_the_bench_show_all_robots_in_every_layout():
    scenes = [bench.crowded_scene(number) for number in range(24)]
    assert {scene.layout for scene in scenes} == set(range(10)) and {scene.style for scene in scenes} == set(range(12))
    assert all({robot.name for robot in scene.robots} == set(contact_sheet.ROBOTS) for scene in scenes)
