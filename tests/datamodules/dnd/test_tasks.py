"""Tasks: right answers, no leak from train into test, the same for a seed, and clear words for a wrong file."""

from __future__ import annotations

import gzip
import json
import re
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.dnd import tasks
from fulgurite.datamodules.dnd.examples import Item, build_task, split_of
from fulgurite.datamodules.dnd.task_makers import bigbench, geography, inflection, languages
from fulgurite.datamodules.dnd.task_makers.tables import wrong_answers
from fulgurite.datamodules.dnd.tasks import Example, Task, list_tasks, load_task
from fulgurite.datamodules.sources.download import fetch, is_cached
from fulgurite.registry import UserError, install_line

WORDS = {
    "plural": {"mouse": "mice", "child": "children", "box": "boxes", "story": "stories", "wolf": "wolves"},
    "past_tense": {"take": "took", "plan": "planned", "try": "tried", "put": "put"},
    "past_participle": {"take": "taken", "plan": "planned"},
    "present_participle": {"run": "running", "dance": "dancing"},
    "third_person": {"try": "tries", "teach": "teaches"},
    "comparative": {"good": "better", "big": "bigger"},
    "superlative": {"good": "best", "big": "biggest"},
    "singular": {"mice": "mouse", "stories": "story"},
    "base_form": {"took": "take", "tried": "try"},
}


def everything(task: Task) -> list[Example]:
    return [*task.train, *task.val, *task.test]


@pytest.fixture(scope="module")
def inflections() -> Path:
    try:
        return fetch("inflections")
    except UserError as error:
        pytest.skip(f"the source 'inflections' is not cached and cannot be fetched: {str(error).splitlines()[0]}")


def need(source: str) -> None:
    if not is_cached(source):
        pytest.skip(f"the source '{source}' is not in the cache: fulgurite fetch {source}")


@pytest.mark.parametrize("name", sorted(WORDS))
def test_inflections_are_right_and_choices_fair(inflections: Path, name: str) -> None:
    task = load_task(name)
    examples = everything(task)
    asked = {item.key: item for item in inflection.make_items(name, inflections)}
    for word, answer in WORDS[name].items():
        item = asked[answer if name in ("singular", "base_form") else word]
        assert item.response == answer and all(word in prompt for prompt in item.prompts)
    assert task.kind == "choice" and len(task.train) > 200 and len(task.test) > 20
    assert all(len(set(e.choices)) == 4 and e.response in e.choices for e in examples)
    assert all(re.fullmatch("[a-z]+", e.response) for e in examples)
    places = Counter(e.choices.index(e.response) for e in task.train)
    assert all(abs(places[i] / len(task.train) - 0.25) < 0.08 for i in range(4))
    assert len({(e.prompt, e.response) for e in examples}) == len(examples)
    for blind in (min, max):  # a model that knows nothing goes by length: that must not pay
        guessed = sum(blind(e.choices, key=lambda c: (len(c), c)) == e.response for e in examples)
        assert guessed / len(examples) < 0.55


def test_a_lemma_is_in_one_split_of_all_tasks(inflections: Path) -> None:
    splits: dict[str, set[str]] = {}
    for name in ("plural", "past_tense", "comparative", "base_form"):
        lemmas = {item.prompts: item.key for item in inflection.make_items(name, inflections)}
        by_prompt = {prompt: key for prompts, key in lemmas.items() for prompt in prompts}
        task = load_task(name)
        for split in ("train", "val", "test"):
            for example in getattr(task, split):
                splits.setdefault(by_prompt[example.prompt], set()).add(split)
    assert len(splits) > 2500 and all(len(found) == 1 for found in splits.values())


def test_a_seed_fixes_everything_and_test_is_the_same_for_all(inflections: Path) -> None:
    first, again, other = load_task("plural", seed=1), load_task("plural", seed=1), load_task("plural", seed=2)
    assert first == again
    assert first.train != other.train and first.test == other.test and first.val == other.val
    assert {e.response for e in first.train} == {e.response for e in other.train}
    short = load_task("plural", limit=7, seed=1)
    assert (short.train, short.val, short.test) == (first.train[:7], first.val[:7], first.test[:7])


def test_countries_and_languages() -> None:
    need("countries")
    need("languages")
    capital, continent, currency, code = map(load_task, ("capital_of", "continent_of", "currency_of", "language_code"))
    assert {"Paris", "Tokyo", "Nairobi"} <= {e.response for e in everything(capital)}
    assert all(len(set(e.choices)) == 4 for e in (*everything(capital), *everything(currency), *everything(code)))
    assert all(len(set(e.choices)) == 7 for e in everything(continent))
    assert any(e.response == "Europe" and "France" in e.prompt for e in everything(continent))
    assert any(e.response == "de" and "German" in e.prompt for e in everything(code))
    tested = {e.response for e in capital.test}
    assert not tested & {e.response for e in capital.train}
    assert not any(e.response in e.prompt for e in everything(capital))


def test_bigbench_prompts(tmp_path: Path) -> None:
    name = "goal_step_wikihow/step_ordering"
    folder = tmp_path / name
    folder.mkdir(parents=True)
    rows = [
        {"input": f"In order to 'Goal {g}', one can 'A {i}' and 'B'. Which should happen first? ", "target_scores": s}
        for g in range(40)
        for i, s in enumerate(({"A": 1, "B": 0}, {"A": 0, "B": 1}))
    ]
    (folder / "task.json").write_text(json.dumps({"task_prefix": "Order.", "examples": rows}))
    items = bigbench.make_items(name, tmp_path)
    assert items[0].key == items[1].key == "Goal 0"  # two questions about one goal stay in one split
    assert items[0].prompts[0].startswith("Order.\nIn order to 'Goal 0'")
    assert items[0].prompts[0].endswith("first?\n  choice: A\n  choice: B")
    assert [item.response for item in items[:2]] == ["A", "B"]
    with pytest.raises(UserError, match="step_ordering"):
        bigbench.make_items("goal_step_wikihow/step_orderin", tmp_path)


def test_names_and_mistakes_in_them() -> None:
    listed = list_tasks()
    assert {"plural", "capital_of", "bigbench:strategyqa", "jsonl:..."} <= set(listed) and all(listed.values())
    for spec, part in (
        ("plurel", "plural"),
        ("jsonl:", "colon"),
        ("nope:x", "no task named"),
        ("jsonl:/none.jsonl", "no such"),
    ):
        with pytest.raises(UserError, match=part):
            load_task(spec)
    with pytest.raises(UserError, match="limit"):
        build_task("x", [Item(str(i), (str(i),), "a") for i in range(50)], source="", licence="", limit=0, seed=0)


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=re.escape(install_line("dnd"))):
        load_task("reasoning_gym:spell_backward")
    with pytest.raises(UserError, match=re.escape(install_line("dnd"))):
        load_task("hf:org/name")


def test_reasoning_gym_generates_by_seed() -> None:
    pytest.importorskip("reasoning_gym")
    task = load_task("reasoning_gym:spell_backward", limit=20)
    assert task == load_task("reasoning_gym:spell_backward", limit=20) and len(task.train) == 20
    assert not {e.prompt for e in task.train} & {e.prompt for e in task.test}
    with pytest.raises(UserError, match="spell_backward"):
        load_task("reasoning_gym:spell_backwards")


def test_hub_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(path: str, config: str | None) -> dict[str, list[dict[str, Any]]]:
        asked.append((path, config))
        return {"train": [{"question": f"q{i}", "answer": "a", "choices": ["a", "b"]} for i in range(60)]}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    task = load_task("hf:org/name/config")
    assert asked == [("org/name", "config")] and task.kind == "choice" and len(everything(task)) == 60
    monkeypatch.setitem(
        sys.modules, "datasets", types.SimpleNamespace(load_dataset=lambda *_: {"train": [{"text": "x", "label": 1}]})
    )
    with pytest.raises(UserError, match="text, label"):
        load_task("hf:org/name")


def test_splits_hold_about_80_10_10_and_ignore_case() -> None:
    counts = Counter(split_of(f"word {i}") for i in range(5000))
    assert 3850 < counts["train"] < 4150 and 400 < counts["val"] < 600 and 400 < counts["test"] < 600
    assert all(split_of(f"Word  {i}") == split_of(f"word {i}") for i in range(50))


def test_a_broken_table_is_refused_with_its_name_and_the_way_out(tmp_path: Path) -> None:
    name = "fact_checker/fever"
    (tmp_path / name).mkdir(parents=True)
    broken = {
        "infl_lu.csv.gz": gzip.compress(b"go,verb,went,gone,going,goes\n")[:20],
        "countries.json": b"[]",
        "iso639-3.json": b'{"639-3": null}',
        f"{name}/task.json": b'{"examples": [3]}',
    }
    for file, content in broken.items():
        (tmp_path / file).write_bytes(content)
    makers = (inflection, "plural"), (geography, "capital_of"), (languages, "language_code"), (bigbench, name)
    for (maker, task), file in zip(makers, broken, strict=True):
        with pytest.raises(UserError) as caught:
            maker.make_items(task, tmp_path)
        assert f"{tmp_path / file} cannot be read" in str(caught.value)
        assert f"fulgurite cache clean {maker.SOURCE} " in str(caught.value)


def test_wrong_answers_come_from_near_the_right_one_as_far_as_they_reach() -> None:
    far = ["right", "a", "b", "c", "d", "e", "", "f"]
    assert set(wrong_answers("right", ["a", "b", "c", "right", ""], far, "key")) == {"a", "b", "c"}
    assert {"a", "b"} < set(found := wrong_answers("right", ["a", "b", "a"], far, "key"))
    assert len(set(found)) == 3 and not {"right", ""} & set(found)
    assert found == wrong_answers("right", ["b", "a"], sorted(far), "key")  # a seed fixes them, whatever the order


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_jsonl_splits_by_prompt_and_drops_repeats(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response": "yes", "choices": ["no", "yes"], "id": i} for i in range(100)]
    task = load_task(f"jsonl:{write(tmp_path / 'mine.jsonl', rows + rows)}")
    assert task.kind == "choice" and len(everything(task)) == 100
    assert all(e.choices == ("no", "yes") for e in everything(task))
    assert all(split_of(e.prompt) == "test" for e in task.test)
    assert 70 < len(task.train) < 90 and task.val and task.test


def test_three_examples_are_enough_and_two_are_not(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response": "r"} for i in range(3)]
    task = load_task(f"jsonl:{write(tmp_path / 'three.jsonl', rows)}")
    assert (len(task.train), len(task.val), len(task.test)) == (1, 1, 1)
    with pytest.raises(UserError, match="too few"):
        load_task(f"jsonl:{write(tmp_path / 'one.jsonl', rows[:1])}")


def test_jsonl_pairs_never_train_on_what_they_test(tmp_path: Path) -> None:
    write(tmp_path / "x.train.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(50)])
    write(tmp_path / "x.test.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(45, 60)])
    task = load_task(f"jsonl:{tmp_path / 'x.train.jsonl'}")
    assert len(task.test) == 15 and len(task.train) + len(task.val) == 45
    (tmp_path / "x.test.jsonl").unlink()
    with pytest.raises(UserError, match=re.escape("x.test.jsonl")):
        load_task(f"jsonl:{tmp_path / 'x.train.jsonl'}")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"prompt": "p", "answer": "r"}, "mine.jsonl:2: no field 'response' (fields: 'prompt', 'answer')"),
        ({"prompt": "p", "response": 3}, "mine.jsonl:2: field 'response' is a int"),
        ({"prompt": "p", "response": "r", "choices": ["a", "b"]}, "mine.jsonl:2: the response 'r' is not among"),
        ({"prompt": "p", "response": "r", "choices": "r"}, "mine.jsonl:2: field 'choices' is a str"),
        ({"prompt": "p", "response": "r", "choices": ["r", 1]}, "mine.jsonl:2: field 'choices' is a int"),
        ({"prompt": "p", "response": "r", "choice": ["r"]}, "did you mean 'choices'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: dict[str, Any], part: str) -> None:
    file = write(tmp_path / "mine.jsonl", [{"prompt": "a", "response": "b"}, row])
    with pytest.raises(UserError, match=re.escape(part)):
        load_task(f"jsonl:{file}")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
rows = st.one_of(
    st.fixed_dictionaries(
        {"prompt": st.text(max_size=8), "response": st.sampled_from("ab")}, optional={"choices": st.just(["a", "b"])}
    ),
    st.dictionaries(st.sampled_from(["prompt", "response", "choices", "x"]), values, max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(content=st.lists(rows, max_size=12), noise=st.binary(max_size=3), limit=st.none() | st.integers(1, 3))
def test_any_jsonl_gives_a_task_or_a_user_error(
    content: list[Any], noise: bytes, limit: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "f.jsonl"
    file.write_bytes("\n".join(json.dumps(row) for row in content).encode() + noise)
    try:
        task = tasks.load_task(f"jsonl:{file}", limit=limit)
    except UserError as error:
        assert str(error).count("\n") < 6
        return
    assert task.train and task.test
    assert not {e.prompt for e in task.train} & {e.prompt for e in task.test}
    assert all(not e.choices or e.response in e.choices for e in everything(task))
    assert limit is None or max(len(task.train), len(task.val), len(task.test)) <= limit
