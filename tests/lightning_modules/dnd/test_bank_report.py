"""Intervals and sentences of a bank's comparison."""

from __future__ import annotations

import numpy
import pytest
import torch

from fulgurite.lightning_modules.dnd.bank_compare import _Work
from fulgurite.lightning_modules.dnd.bank_report import bank_results, coverage_told, given_back, intervals

TASKS = [f"task{i}" for i in range(20)]


def scores(mean: float, spread: float, seed: int, draws: int = 1) -> dict[str, list[float]]:
    rng = numpy.random.default_rng(seed)
    return {t: (mean + spread * rng.standard_normal(draws)).tolist() for t in TASKS}


def test_an_interval_is_as_wide_as_the_means_scatter() -> None:
    found = intervals({"a": scores(0.5, 0.1, 1), "b": scores(0.7, 0.1, 2)}, TASKS, "a")
    assert found["a"]["low"] < found["a"]["mean"] < found["a"]["high"]
    width = found["a"]["high"] - found["a"]["low"]
    assert width == pytest.approx(2 * 1.96 * 0.1 / 20**0.5, rel=0.5)
    assert found["b"]["difference_low"] > 0.1 and found["a"]["difference"] == 0


def test_differences_are_taken_in_pairs() -> None:
    low = scores(0.5, 0.2, 1)
    found = intervals({"a": low, "b": {t: [v[0] + 0.01] for t, v in low.items()}}, TASKS, "a")
    assert found["b"]["difference_low"] == pytest.approx(0.01)  # though the means scatter by 0.04
    assert found["b"]["difference_high"] == pytest.approx(0.01)


def test_validation_chooses_and_the_words_say_what_the_numbers_do() -> None:
    choice = {
        "base": scores(0.3, 0.02, 1), "multi-task LoRA": scores(0.6, 0.02, 2), "own LoRA": scores(0.9, 0.02, 3),
        "plain": scores(0.4, 0.02, 4, 3), "mixed": scores(0.5, 0.02, 5, 3),
        "best single LoRA, chosen on the test": scores(0.7, 0.0, 6),
    }  # fmt: skip
    for method in choice:
        choice[method]["chooses"] = [0.9 if method == "plain" else 0.1]
    kinds = {t: "a kind" for t in [*TASKS, "chooses"]}
    results = bank_results(choice, choice, TASKS, ["chooses"], ["plain", "mixed"], kinds)
    first = results["statements"][0]
    assert "`plain`" in first and "chosen by chooses" in first, "test scores chose the variant"
    assert "behind the best control without labels, multi-task LoRA" in first
    assert results["metrics"]["test/choice/plain"] == pytest.approx(0.4, abs=0.03)


def test_without_validation_no_variant_is_called_the_best() -> None:
    choice = {"base": scores(0.3, 0.02, 1), "plain": scores(0.4, 0.02, 4), "mixed": scores(0.5, 0.02, 5)}
    results = bank_results(choice, choice, TASKS, [], ["plain", "mixed"], dict.fromkeys(TASKS, "a kind"))
    assert "the first of our variants is `plain`" in results["statements"][0]


def test_shares_of_a_gain_leave_out_tasks_without_one() -> None:
    known = {
        "learns": {"base": 0.2, "own LoRA": 0.8, "plain": 0.5},
        "no use": {"base": 0.5, "own LoRA": 0.51, "plain": 0.0},
    }
    found = given_back(known, ["plain"])
    assert found["metrics"] == {"test/given_back/plain": pytest.approx(0.5)}
    assert given_back({"no use": known["no use"]}, ["plain"])["tables"] == []


def test_a_generator_gets_full_precision_from_states_kept_in_half() -> None:
    """CPU kernels mix the two, GPU kernels refuse: the network has to be given float32."""
    seen: list[torch.dtype] = []

    class Generator:
        network = torch.nn.Identity()

        def generate(self) -> None: ...

        def adapter(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(tokens.dtype)
            return {}

    work = object.__new__(_Work)
    work._conditions = {("task", 0): torch.zeros(2, 3, 4, dtype=torch.float16)}
    work._made(Generator(), "task", [], 0)
    assert seen == [torch.float32]


def test_coverage_is_told_with_its_rank_correlation() -> None:
    cosines = {f"task {i}": 0.1 * i for i in range(6)}
    choice = {"base": {t: [0.2] for t in cosines}, "plain": {t: [0.2 + c**2, 0.2 + c**2] for t, c in cosines.items()}}
    found = coverage_told(choice, cosines, "plain")
    assert found["metrics"] == {"test/coverage_rank_correlation": pytest.approx(1.0)}
    assert "rank correlation +1.00 (+1.00 to +1.00)" in found["statements"][0]
    choice["plain"] = {t: [0.9 - c] for t, c in cosines.items()}
    assert coverage_told(choice, cosines, "plain")["metrics"]["test/coverage_rank_correlation"] == pytest.approx(-1.0)
    assert coverage_told(choice, {"task 1": 0.1}, "plain")["statements"] == []
    assert coverage_told({**choice, "plain": choice["base"]}, cosines, "plain")["statements"] == []
