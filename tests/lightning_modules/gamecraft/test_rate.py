"""The blind A/B page over HTTP: sides are hidden, answers are written at once, and nobody else can answer."""

from __future__ import annotations

import csv
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fulgurite.lightning_modules.gamecraft.rate import QUESTIONS, Study, find_pairs, serve
from fulgurite.registry import UserError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for i in range(12):
            (tmp_path / side / f"film{i}.mp4").write_bytes(f"{side}{i}".encode() * 50)
    (tmp_path / "a" / "only-here.mp4").write_bytes(b"x")
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def page(folders: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Study, str]]:
    study = Study(find_pairs(*folders), tmp_path / "answers.csv", "ann", seed=0)
    server = serve(study, 0)
    yield study, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        found: bytes = answer.read()
    return found


def post(url: str, said: object, token: str) -> int:
    request = urllib.request.Request(url + "/answer", json.dumps(said).encode(), {"X-Token": token})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_rater_goes_through_all_pairs_and_the_csv_says_whose_film_was_chosen(
    page: tuple[Study, str], tmp_path: Path
) -> None:
    study, url = page
    assert b"Which film is better?" in get(url) and study.token in get(url).decode()
    lefts = set()
    for number in range(12):
        shown = json.loads(get(url + "/next"))
        assert shown["number"] == number and not {"a", "b", "name"} & shown.keys()
        whose = get(f"{url}/film/{shown['index']}/left")[:1].decode()
        lefts.add(whose)
        side = "left" if whose == "a" else "right"
        assert post(url, {"index": shown["index"], "choices": [side, "same", side], "seconds": 2}, study.token) == 200
    assert lefts == {"a", "b"}, "sides must change"
    assert json.loads(get(url + "/next"))["done"] and study.finished.is_set()
    with open(tmp_path / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36 and {r["rater"] for r in rows} == {"ann"}
    assert {r["choice"] for r in rows if r["question"] == QUESTIONS[0]} == {"a"}
    assert "a better overall: 100%" in study.summary() and "a looks better: 50%" in study.summary()


def test_answers_on_disk_are_not_asked_for_again(
    page: tuple[Study, str], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study, _ = page
    study.answer(study.next()["index"], ["left"] * 3, 1.0)
    again = Study(find_pairs(*folders), tmp_path / "answers.csv", "ann", seed=0)
    assert len(again.remaining()) == 11
    assert len(Study(find_pairs(*folders), tmp_path / "answers.csv", "bob", seed=0).remaining()) == 12


def test_others_and_nonsense_are_turned_away(page: tuple[Study, str], tmp_path: Path) -> None:
    study, url = page
    fine = {"index": 0, "choices": ["left"] * 3, "seconds": 1}
    assert post(url, fine, "guessed") == 403
    nonsense = ({**fine, "choices": ["a"] * 3}, {**fine, "index": 99}, {**fine, "index": -1}, [], "x")
    assert [post(url, said, study.token) for said in nonsense] == [400] * 5
    for path in ("/film/99/left", "/film/0/../../etc/passwd", "/answers.csv"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url + path)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(url, Host="evil.example:80")
    assert not (tmp_path / "answers.csv").exists()


def test_a_film_comes_in_ranges(page: tuple[Study, str]) -> None:
    _, url = page
    whole = get(url + "/film/0/left")
    assert get(url + "/film/0/left", Range="bytes=3-7") == whole[3:8]
    assert get(url + "/film/0/left", Range="bytes=10-") == whole[10:]


def test_mistakes_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no film of the same name"):
        find_pairs(folders[0], tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        find_pairs(folders[0], tmp_path / "nowhere")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="not a CSV of answers"):
        Study(find_pairs(*folders), tmp_path / "other.csv", "ann", 0)
