"""What the evaluation says in words agrees with the numbers, in every direction."""

from __future__ import annotations

from typing import Any

import pytest

from fulgurite.datamodules.dnd.examples import Example
from fulgurite.lightning_modules.dnd.comparison import compare, recovered, verdict
from fulgurite.lightning_modules.dnd.controls import GENERATOR, MISMATCHED, OTHER_TASKS, OWN, Condition

ROWS = [
    Condition("base", "base"),
    Condition("base, 4 solved examples", "shots", uses_labels=True),
    Condition(OTHER_TASKS, "a"),
    Condition(OTHER_TASKS, "b"),
    Condition(MISMATCHED, "m"),
    Condition(GENERATOR, "g0"),
    Condition(GENERATOR, "g1"),
    Condition(OWN, "own", uses_labels=True),
]
EXAMPLES = [Example("p", "ab", ("ab", "a", "abc", "abcd"))] * 100


def scores(**exact: float) -> dict[str, dict[str, Any]]:
    return {r.name: {"choice": None, "exact_match": exact.get(r.name, 0.0)} for r in ROWS}


@pytest.mark.parametrize(
    ("own", "rival", "foreign", "said"),
    [
        (0.9, 0.5, 0.5, "ahead of the best control without labels (base, 0.500) and ahead of itself"),
        (
            0.5,
            0.45,
            0.52,
            "level (within two standard errors) with the best control without labels (base, 0.450) and level",
        ),
        (0.1, 0.5, 0.6, "behind the best control without labels (base, 0.500) and behind itself"),
    ],
)
def test_verdict(own: float, rival: float, foreign: float, said: str) -> None:
    found = scores(g0=own, g1=own, base=rival, m=foreign, own=1.0, shots=1.0)
    text = verdict("t", ROWS, found, "exact_match", 100)
    assert text is not None and said in text and f"is {own:.3f}" in text


def test_labels_are_never_called_a_control_without_labels() -> None:
    text = verdict("t", ROWS, scores(own=1.0, shots=1.0, a=0.3), "exact_match", 100)
    assert text is not None and "LoRA of another task, 0.150" in text


def test_groups_are_averaged_and_the_best_single_lora_is_named_as_chosen_on_the_test() -> None:
    table = compare("t", ROWS, scores(a=0.2, b=0.6, g0=0.4, g1=0.6), EXAMPLES, ("a", 0.9, 0.8))
    rows = {row[0]: row for row in table["tables"][0]["rows"]}
    assert rows[OTHER_TASKS][1:] == [2, None, pytest.approx(0.4), "0.200 to 0.600"]
    assert rows["best of them, chosen on the test"][3] == 0.6
    assert table["metrics"]["test/exact_match/generator"] == pytest.approx(0.5)
    assert rows["blind: always the shortest choice"][2] == 0.0
    assert "inside the training tasks' own range" in " ".join(table["statements"])


def three(base: float, own: float, made: float) -> dict[str, dict[str, Any]]:
    return {k: {"choice": 0.5, "exact_match": v} for k, v in (("base", base), ("own", own), ("generator", made))}


def test_recovered_gain_counts_only_tasks_that_have_one() -> None:
    found = recovered({"a": three(0.0, 0.8, 0.4), "b": three(0.2, 0.6, 0.6), "c": three(0.5, 0.5, 0.9)})
    assert found["metrics"]["test/recovered_gain"] == pytest.approx((0.5 + 1.0) / 2)
    assert "75%" in found["statements"][0] and "2 of 3 tasks" in found["statements"][0]
    assert len(found["tables"][0]["rows"]) == 3
    none = recovered({"c": three(0.5, 0.5, 0.9)})
    assert not none["metrics"] and "no gain to give back" in none["statements"][0]
