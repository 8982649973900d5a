"""`viki evaluate` and `viki solve`: controls beside the model, what unreadable answers count, servers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy
import pytest
import torch

from fulgurite.cli import main
from fulgurite.datamodules.viki.encoding import encode
from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.datamodules.viki.records import write_records
from fulgurite.lightning_modules.chunking.readers.chat_client import ChatClient, Completion
from fulgurite.lightning_modules.viki import release, solve
from fulgurite.lightning_modules.viki.evaluation.answerers import (
    ConstantAnswer,
    RandomAnswers,
    ServerAnswers,
    wrapped,
)
from fulgurite.lightning_modules.viki.evaluation.cooperation import RIGHT, cooperation_report
from fulgurite.lightning_modules.viki.evaluation.figure import _worth, draw_families
from fulgurite.lightning_modules.viki.evaluation.kept import KeptAnswers
from fulgurite.lightning_modules.viki.evaluation.report import errors_px, report
from fulgurite.lightning_modules.viki.policy.asked import answer_tokens
from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy
from fulgurite.lightning_modules.viki.policy.small import small_policy
from fulgurite.lightning_modules.viki.scoring import Score, by_family, interval, score
from fulgurite.registry import UserError

PATHS = [[[[k, k + up] for k in range(5)], [[k + up, 0] for k in range(5)]] for up in (0, 40)]


def records(level, split, count):
    return [draw_record(level, split, index, seed=0) for index in range(count)]


def level_3(count):
    first = draw_record(1, "test", 0, seed=0)
    return [replace(first, level=3, index=n, ground_truth=str(PATHS[n % 2]), scene=None) for n in range(count)]


def test_gold_is_right_and_says_why_not():
    for level in (1, 2):
        for record in records(level, "test", 6):
            gold = score(record, wrapped(record.answer()))
            assert (gold.format, gold.accuracy, gold.level, gold.family) == (1, 1, level, record.family)
    plan = records(2, "test", 1)[0]
    assert score(plan, "no plan").code == "UNREADABLE_PLAN"
    assert score(plan, wrapped('[{"step": 1, "actions": {"R1": ["Fly", "R1"]}}]')).code == "ACTION_NOT_FEASIBLE"
    assert score(level_3(1)[0], wrapped(str(PATHS[1]))).error_px == pytest.approx(28.3, abs=0.1)
    assert score(level_3(1)[0], wrapped("nothing")).error_px is None


def test_the_constant_is_the_best_on_training_records():
    known = records(1, "train", 60)
    constant = ConstantAnswer(known)
    shares = [sum(score(r, wrapped(a)).accuracy for r in known) for a in {r.answer() for r in known}]
    texts = constant.answers(known)
    assert len(set(texts)) == 1
    assert sum(score(r, t).accuracy for r, t in zip(known, texts, strict=True)) == max(shares)
    mean = ConstantAnswer(level_3(2)).answers(level_3(1))[0]
    assert score(level_3(1)[0], mean).error_px == score(level_3(2)[1], mean).error_px == pytest.approx(14.1, abs=0.1)
    assert RandomAnswers(known, 1).answers(known) == RandomAnswers(known, 1).answers(known)
    assert RandomAnswers(known, 1).answers(known) != RandomAnswers(known, 2).answers(known)


def test_an_answer_that_can_not_be_read_gains_nothing(tmp_path):
    constant = [Score(3, "arms", 1, 0.8, 10.0), Score(3, "arms", 1, 0.8, 30.0)]
    model = [Score(3, "arms", 1, 0.9, 5.0), Score(3, "arms", 0, 0.0, None)]
    assert errors_px(model, constant) == [5.0, 30.0]
    told = report({"test": {"model": model, "constant": constant}})
    assert told["metrics"] == {"test/l3/model": pytest.approx(1 - 17.5 / 20), "test/l3/constant": 0.0}
    assert "skill: model 0.12, constant 0.00" in told["statements"][0]
    assert all("hardly falls with the error" in table["note"] for table in told["tables"])
    draw_families({"test": {"model": model, "constant": constant}}, tmp_path / "families.png")
    assert sum(_worth(model, constant)) / 2 == pytest.approx(told["metrics"]["test/l3/model"])
    assert (tmp_path / "families.png").stat().st_size > 5000


def test_families_stand_in_their_order_with_intervals():
    scores = [Score(2, family, 1, accuracy) for family, accuracy in (("10-1", 1), ("2-1", 0), ("10-1", 0), ("1-2", 1))]
    assert [family for _, family in by_family(scores)] == ["1-2", "2-1", "10-1"]
    low, high = interval([0.0, 1.0] * 50)
    assert 0.39 < low < 0.42 < 0.58 < high < 0.61
    assert interval([1.0] * 5) == (1.0, 1.0)


def test_cooperation_is_counted_in_plans():
    """One robot after the other is no cooperation, waits more and needs more steps; the right plans stand beside it."""
    plans = [r for r in records(2, "train", 40) if len(r.problem.agents) == 2]
    one_by_one = []
    for record in plans:
        acts = [{robot: words} for row in json.loads(record.answer()) for robot, words in row["actions"].items()]
        one_by_one.append(wrapped(json.dumps([{"step": n, "actions": act} for n, act in enumerate(acts, 1)])))
    told = cooperation_report("test", [*plans, *records(1, "test", 2)], {"serial": [*one_by_one, "", ""]})
    right, serial = told["measured"][RIGHT], told["measured"]["serial"]
    assert right["parallel"][0] > 0.5 and right["extra_steps"][0] == 0
    assert serial["parallel"][0] == 0 and serial["idle"][0] == 0.5 and serial["extra_steps"][0] > 1
    assert serial["information_bits"][0] == pytest.approx(right["information_bits"][0])
    assert right["idle"][1] <= right["idle"][0] <= right["idle"][2] and right["idle"][1] < right["idle"][2]
    assert told["metrics"]["test/parallel/serial"] == 0
    assert [row[0] for row in told["tables"][0]["rows"]] == [RIGHT, "serial"]
    nothing = cooperation_report("test", plans, {"silent": [""] * len(plans)})["measured"]["silent"]
    assert nothing == {}, "what can't be read tells nothing"


class _Server:
    """Answers with what it was asked."""

    def __init__(self):
        self.asked = []

    def complete(self, messages, temperature, max_tokens):
        self.asked.append(messages)
        return Completion("<answer>['fetch']</answer>", False)


def test_a_server_is_sent_pictures_and_the_full_prompt():
    image = encode(numpy.zeros((28, 28, 3), numpy.uint8))
    record = replace(records(1, "test", 1)[0], images=(image, image), views=("global", "R1"))
    server = _Server()
    for settings, pictures in (({}, 2), ({"views": "global"}, 1), ({"blind": True}, 0)):
        assert ServerAnswers(server, **settings).answers([record]) == ["<answer>['fetch']</answer>"]
        system, user = server.asked[-1]
        assert system["content"] == record.system and user["content"][-1]["text"] == record.instruction
        urls = [part["image_url"]["url"] for part in user["content"][:-1]]
        assert len(urls) == pictures and all(url.startswith("data:image/jpeg;base64,") for url in urls)


class _Broken(_Server):
    """Fails at its third call."""

    def complete(self, messages, temperature, max_tokens):
        if len(self.asked) == 2:
            raise UserError("broken")
        super().complete(messages, temperature, max_tokens)
        return Completion("<answer>", True)


def test_answers_of_a_server_that_failed_are_not_paid_twice(tmp_path):
    asked, file = records(1, "test", 4), tmp_path / "out" / "unfinished.jsonl"
    with pytest.raises(UserError, match="broken"):
        ServerAnswers(_Broken(), kept=KeptAnswers(file, "url model")).answers(asked)
    file.write_text(file.read_text() + '\n{"asked": "cut o')
    server, kept = _Server(), KeptAnswers(file, "url model")
    answerer = ServerAnswers(server, kept=kept)
    assert answerer.answers(asked) == ["<answer>"] * 2 + ["<answer>['fetch']</answer>"] * 2
    assert (len(server.asked), len(kept.taken), answerer.cut_off) == (2, 2, 2)
    assert len(KeptAnswers(file, "url model")._known) == 4
    for other, settings in (("url other", {}), ("url model", {"max_new_tokens": 9})):
        server = _Server()
        ServerAnswers(server, kept=KeptAnswers(file, other), **settings).answers(asked)
        assert len(server.asked) == 4, "another model's or limit's answers are no answers"


def test_a_server_s_answers_are_kept_until_the_results_are_written(data, tmp_path, monkeypatch, capsys):
    limits, broken = [], [True]

    def complete(self, messages, temperature, max_tokens):
        limits.append(max_tokens)
        if broken[0] and len(limits) == 3:
            raise UserError("--max_cost is spent")
        return Completion("<answer>['fetch']</answer>", False)

    monkeypatch.setattr(ChatClient, "complete", complete)
    command = ["viki", "evaluate", "--model", "openai:http://127.0.0.1:1/v1", "--data", json.dumps([str(data / "l1")])]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert (tmp_path / "unfinished.jsonl").exists() and not (tmp_path / "results.json").exists()
    broken[0] = False
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "2 answers are an earlier call's" in capsys.readouterr().out
    questions = {(r.system, r.instruction) for r in records(1, "test", 8)}  # without pictures: the blind's as well
    assert set(limits) == {2048} and len(limits) == 3 + len(questions) - 2
    assert (tmp_path / "results.json").exists() and not (tmp_path / "unfinished.jsonl").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate")
    for level in (1, 2):
        for split, count in (("train", 40), ("test", 8), ("heldout_family", 3)):
            write_records(out / f"l{level}" / split / "part-00000.parquet", records(level, split, count))
    texts = [record.answer() for record in records(2, "train", 20)]
    small_policy(texts, "tiny").save(out / "policy")
    return out


def test_evaluate_puts_controls_beside_the_model(data, tmp_path, capsys):
    out = tmp_path / "out"
    folders = json.dumps([str(data / "l1"), str(data / "l2")])
    command = ["viki", "evaluate", "--model", str(data / "policy"), "--data", folders, "--out", str(out)]
    more = ["--split", '["test", "heldout_family"]', "--blind", str(data / "policy"), "--max_new_tokens", "4"]
    assert main([*command, *more]) == 0
    told = json.loads((out / "results.json").read_text())
    who = ["model", "no pictures", "trained blind", "constant", "random"]
    assert [row[0] for row in told["tables"][0]["rows"]] == who
    by_level = {f"{s}/l{n}/{w}" for s in ("test", "heldout_family") for n in (1, 2) for w in who}
    assert by_level < set(told["metrics"])
    assert told["metrics"]["test/parallel/right plans"] > 0 and "test/parallel/model" not in told["metrics"]
    assert told["metrics"]["test/l1/constant"] > told["metrics"]["test/l1/model"] == 0
    families = next(t for t in told["tables"] if t["title"] == "Accuracy by sub-family, heldout_family")
    assert all(row[1].startswith("11-") for row in families["rows"])
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == len(who) * (16 + 6) and (out / "families.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "Level 2, test, 8 records, right: model 0.0%" in printed
    assert "model: 22 answers of 22 were cut off after 4 tokens." in printed and "constant: " not in printed
    assert (answer_tokens(data / "policy"), answer_tokens("Qwen/Qwen2.5-VL-3B-Instruct")) == (320, 2048)
    released = tmp_path / "released"
    assert main(["viki", "release", str(data / "policy"), json.dumps([str(out / "results.json")]), str(released)]) == 0
    card = (released / "README.md").read_text()
    assert "- Level 2, test, 8 records" in card and "| trained blind |" in card
    assert (released / "model.safetensors").stat().st_size < 0.6 * (
        data / "policy" / "model.safetensors"
    ).stat().st_size
    assert VikiPolicy.load(released).texts.special == VikiPolicy.load(data / "policy").texts.special
    assert main(["viki", "release", str(data / "policy"), json.dumps([str(data / "none.json")]), str(released)]) == 2
    small = tmp_path / "small"
    told = json.dumps([str(out / "results.json")])
    assert main(["viki", "release", str(data / "policy"), told, str(small), "--eight_bits", "true"]) == 0
    assert "in eight bits" in (small / "README.md").read_text() and not (small / "model.safetensors").exists()
    exact, rounded = (VikiPolicy.load(folder).state_dict() for folder in (data / "policy", small))
    assert exact.keys() == rounded.keys()
    for name, weight in exact.items():
        torch.testing.assert_close(rounded[name], weight, rtol=0.01, atol=float(weight.abs().max()) / 250)


def test_release_leaves_what_it_can_not_replace(data, tmp_path, capsys, monkeypatch):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"statements": ["Level 1."], "tables": []}))
    weights = tmp_path / "weights"
    command = ["viki", "release", str(data / "policy"), json.dumps([str(results)])]
    assert main([*command, str(weights / "one")]) == 0
    assert main([*command, str(weights)]) == 2
    assert "something else than a policy" in capsys.readouterr().err
    (weights / "one" / "README.md").write_text("old")
    monkeypatch.setattr(release, "MAX_BYTES", 1)
    assert main([*command, str(weights / "one")]) == 2
    assert "more than 1" in capsys.readouterr().err
    assert (weights / "one" / "README.md").read_text() == "old"
    assert [p.name for p in weights.iterdir()] == ["one"]


def test_what_evaluate_can_not_do_is_told(data, tmp_path, capsys):
    base = ["viki", "evaluate", "--out", str(tmp_path), "--data", json.dumps([str(data / "l1")])]
    for more, says in (
        (["--model", str(tmp_path)], "there is no policy"),
        (["--model", str(data / "policy"), "--split", '["nothing"]'], "no split 'nothing'"),
        (["--model", str(data / "policy"), "--level", "l2"], "no record of level 2"),
        (["--model", "openai:nowhere"], "begins with http"),
    ):
        assert main([*base, *more]) == 2
        assert says in capsys.readouterr().err
    write_records(tmp_path / "l2" / "test" / "part-00000.parquet", records(2, "test", 2))
    levels = json.dumps([str(data / "l1"), str(tmp_path / "l2")])
    assert main(["viki", "evaluate", "--out", str(tmp_path), "--data", levels, "--model", str(tmp_path)]) == 2
    assert "no training record of level 2" in capsys.readouterr().err, "said before a model is read"


def test_the_released_policy_plans_in_the_form_asked_for(tmp_path, capsys):
    """Of what it can't see it still reads the words: a picture without anything, and a task of two robots."""
    picture = tmp_path / "dark.jpg"
    picture.write_bytes(encode(numpy.zeros((168, 308, 3), numpy.uint8)))
    words, team = "Put the apple and the bread into the bowl.", "R1=stompy,R2=fetch"
    assert main(["viki", "solve", str(picture), words, "--robots", team]) == 0
    lines = capsys.readouterr().out.splitlines()
    picture.write_bytes(encode(numpy.zeros((336, 600, 3), numpy.uint8)))
    assert main(["viki", "solve", str(picture), words, "--robots", team]) == 0
    note, *again = capsys.readouterr().out.splitlines()
    assert note == "picture: 600x336 resized to 308x168, which the policy was trained on" and again == lines
    assert lines[0] == "<think>" and lines[-1].startswith("5. R1 Place bowl; R2 Place bowl")


def test_solve_asks_the_policy_and_the_checker(data, tmp_path, capsys):
    picture = tmp_path / "kitchen.jpg"
    picture.write_bytes(encode(numpy.zeros((56, 56, 3), numpy.uint8)))
    weights = ["--weights", str(data / "policy"), "--max_new_tokens", "4"]
    assert main(["viki", "solve", str(picture), "Bring the apple.", *weights, "--robots", "R1=fetch"]) == 1
    told = capsys.readouterr().out
    assert "can't be read: nothing stands between <answer> and </answer> (it had room for 4 tokens)" in told
    assert "resized" not in told, "it is not known what this policy was trained on"
    assert main(["viki", "solve", str(picture), "own", *weights, "--record", f"{data / 'l2' / 'test'}:1"]) == 1
    assert "test-000001: accuracy 0.00" in capsys.readouterr().out
    for arguments, says in (
        ([str(picture), "own", *weights], "name one with --record FILE:N"),
        ([str(picture), "x", *weights, "--robots", "R1=toaster"], "a team is written R1=unitree_h1,R2=fetch"),
        ([str(tmp_path / "none.jpg"), "x", *weights], "can't be read"),
        ([str(picture), "x", *weights, "--level", "l4"], "no level 'l4'"),
        ([str(picture), "x", *weights, "--record", "3"], "is not FILE:N"),
    ):
        assert main(["viki", "solve", *arguments]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(("level", "answer", "why"), [
    (1, "['fetch']", ""),
    (1, "fetch", "is no list"),
    (2, '[{"step": 1, "actions": {"R1": ["Move", "apple"]}}]', ""),
    (2, "[{]", "is no list"),
    (2, '[{"step": 1, "actions": {}}]', "no step in which a robot acts"),
    (3, str(PATHS[0]), ""),
])  # fmt: skip
def test_an_answer_that_can_not_be_read_says_why(level, answer, why):
    told = solve._unreadable(level, wrapped(answer))
    assert why in told and bool(why) == bool(told)
    assert "nothing stands between" in solve._unreadable(level, answer)
