"""Sweep files: read as W&B reads them, checked before anything starts, turned into trials."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.launch.config.experiment import EXPERIMENTS, parse_flags, resolve
from fulgurite.launch.config.settings import Settings
from fulgurite.launch.sweeps.listed import check_trials, listed_trials
from fulgurite.launch.sweeps.metrics import check_metric
from fulgurite.launch.sweeps.parameters import DISTRIBUTIONS, read_parameters
from fulgurite.launch.sweeps.sweep_file import find_sweep, read_sweep
from fulgurite.launch.sweeps.trial import Place, new_trial
from fulgurite.registry import UserError

SHIPPED = sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))


def _parameter(**spec: Any) -> Any:
    (found,) = read_parameters({"x": spec}, lambda path: "here")
    return found


def _write(folder: Path, **changes: Any) -> Path:
    content = {
        "program": "hello",
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": {"model.width": {"values": [4, 8]}},
        **changes,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    return file


def _place(folder: Path, **changes: Any) -> Place:
    return Place(read_sweep(_write(folder, **changes)), folder / "sweep", folder / "runs", False)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_every_shipped_sweep_resolves_has_its_metric_and_is_read_alike_by_wandb(file: Path, tmp_path: Path) -> None:
    sweep = read_sweep(file)
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == sweep.content  # `1e-3` would be a word to W&B
    place = Place(sweep, tmp_path, tmp_path, False)
    middle = new_trial({p.name: p.at(0.5) for p in sweep.parameters})
    trials = [middle] if sweep.method == "bayes" else listed_trials(sweep)
    check_trials(place, trials)
    check_metric(str(sweep.metric), place.resolve(trials[0]), tmp_path)
    assert not str(sweep.metric).startswith("test/")


def test_there_is_a_sweep_for_hello_and_each_paper() -> None:
    assert {f.stem for f in SHIPPED} == {"hello", "dnd", "chunking", "paro", "viki", "gamecraft"}
    assert find_sweep("hello") == find_sweep("sweeps/hello") == EXPERIMENTS / "sweeps" / "hello.yaml"


@given(u=st.floats(0, 1, exclude_max=True), low=st.floats(0.001, 10), width=st.floats(0.01, 100))
def test_a_distribution_with_bounds_keeps_to_them(u: float, low: float, width: float) -> None:
    high = low + width
    for kind in ("uniform", "log_uniform_values", "inv_log_uniform_values"):
        assert low * (1 - 1e-9) <= _parameter(distribution=kind, min=low, max=high).at(u) <= high * (1 + 1e-9)
    assert math.exp(low) * (1 - 1e-9) <= _parameter(distribution="log_uniform", min=low, max=high).at(u)
    inverse = 1 / _parameter(distribution="inv_log_uniform", min=low, max=high).at(u)
    assert math.exp(low) * (1 - 1e-9) <= inverse <= math.exp(high) * (1 + 1e-9)
    stepped = _parameter(distribution="q_uniform", min=low, max=high, q=0.5).at(u)
    assert stepped % 0.5 == 0 and low - 0.25 <= stepped <= high + 0.25


@given(first=st.integers(-1000, 1000), count=st.integers(1, 50))
def test_whole_numbers_come_up_equally_often_and_all_of_them(first: int, count: int) -> None:
    found = _parameter(min=first, max=first + count - 1) if count > 1 else _parameter(value=first)
    values = [found.at((n + 0.5) / (4 * count)) for n in range(4 * count)]
    assert values == [first + n // 4 for n in range(4 * count)]
    assert found.values == tuple(range(first, first + count))


def test_normal_distributions_have_their_mean_and_spread() -> None:
    points = [(n + 0.5) / 2000 for n in range(2000)]
    values = [_parameter(distribution="normal", mu=3, sigma=2).at(u) for u in points]
    assert statistics.fmean(values) == pytest.approx(3, abs=0.01) and statistics.stdev(values) == pytest.approx(2, 0.01)
    logs = [math.log(_parameter(distribution="log_normal", mu=1, sigma=0.5).at(u)) for u in points]
    assert statistics.fmean(logs) == pytest.approx(1, abs=0.01) and statistics.stdev(logs) == pytest.approx(0.5, 0.01)
    assert {type(_parameter(distribution="q_normal", mu=0, sigma=9, q=2).at(u)) for u in points} == {int}


def test_probabilities_of_values_are_kept() -> None:
    found = _parameter(values=["a", None, [1, 2]], probabilities=[0.5, 0.2, 0.3])
    values = [found.at((n + 0.5) / 10) for n in range(10)]
    assert values == ["a"] * 5 + [None] * 2 + [[1, 2]] * 3


def test_nested_parameters_constants_and_nulls_become_settings(tmp_path: Path) -> None:
    nested = {"model": {"parameters": {"width": {"values": [4, 8]}}}, "trainer.max_time": {"value": None}}
    place = _place(tmp_path, parameters=nested)
    trials = listed_trials(place.sweep)
    assert [t.parameters for t in trials] == [{"model.width": w, "trainer.max_time": None} for w in (4, 8)]
    found = place.resolve(trials[1]).stages[0].settings
    assert found.get("model", "init_args", "width") == 8
    assert found.get("trainer", "max_time", default="absent") is None


def test_a_grid_is_the_product_and_run_cap_cuts_it(tmp_path: Path) -> None:
    parameters = {
        "model.width": {"values": [4, 8, 16]},
        "data.batch_size": {"min": 1, "max": 3},
        "trainer.max_epochs": {"distribution": "q_uniform", "min": 2, "max": 6, "q": 2},
    }
    assert len(listed_trials(_place(tmp_path, parameters=parameters).sweep)) == 27
    assert len(listed_trials(_place(tmp_path, parameters=parameters, run_cap=5).sweep)) == 5


def test_a_random_search_draws_the_same_trials_each_time_and_none_twice(tmp_path: Path) -> None:
    small = {"model.width": {"values": [4, 8, 16]}, "data.batch_size": {"values": [16, 32]}}
    drawn = [listed_trials(_place(tmp_path, method="random", run_cap=20, parameters=small).sweep) for _ in range(2)]
    assert drawn[0] == drawn[1] and len({t.id for t in drawn[0]}) == len(drawn[0]) == 6  # all there are
    wide = {"model.optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1}}
    rates = [
        t.parameters["model.optimizer.lr"]
        for t in listed_trials(_place(tmp_path, method="random", run_cap=200, parameters=wide).sweep)
    ]
    assert len(rates) == 200 and 0.35 < sum(r < 1e-3 for r in rates) / 200 < 0.65


def test_words_of_the_command_belong_to_every_trial(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("data: {batch_size: 7}\n")
    command = ["${env}", "python", "-m", "fulgurite", "run", "${program}", "--trainer.max_epochs", "2"]
    place = _place(tmp_path, command=[*command, "-c", str(tmp_path / "more.yaml"), "${args}"])
    found = place.resolve(listed_trials(place.sweep)[0]).stages[0].settings
    assert found.get("trainer", "max_epochs") == 2 and found.get("data", "init_args", "batch_size") == 7
    named = _place(tmp_path, program=None, command=["fulgurite", "run", "hello", "-c", "${args_json_file}"]).sweep
    assert named.experiment == "hello" and named.fixed == ()


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"metod": "grid"}, "unknown key 'metod' of a sweep\nDid you mean 'method'?"),
    "unknown method": ({"method": "gird"}, "`method:` is one of grid, random, bayes, not 'gird'"),
    "no experiment": ({"program": None}, "`program:` names the experiment"),
    "unknown experiment": ({"program": "helo"}, "no experiment named 'helo'\nDid you mean 'hello'?"),
    "script": ({"program": "train.py"}, "'train.py' is a script"),
    "command of another kind": ({"command": ["python", "train.py"]}, "the command starts no experiment"),
    "no metric": ({"method": "bayes", "metric": None, "run_cap": 3}, "bayes needs a `metric:`"),
    "goal": ({"metric": {"name": "a", "goal": "max"}}, "`goal:` is minimize or maximize, not 'max'"),
    "no end": ({"method": "random"}, "a random search has no end of its own\nSay how many trials: run_cap: 20"),
    "grid of a range": (
        {"parameters": {"model.width": {"min": 0.1, "max": 2.0}}},
        "a grid needs values to go through",
    ),
    "unknown parameter key": (
        {"parameters": {"model.width": {"vals": [1]}}},
        "unknown key 'vals' of the parameter 'model.width'\nDid you mean 'values'",
    ),
    "unknown distribution": (
        {"parameters": {"model.width": {"distribution": "uniforn", "min": 1, "max": 2}}},
        "no distribution 'uniforn'\nDid you mean 'uniform'",
    ),
    "bounds": ({"parameters": {"model.width": {"min": 3, "max": 2}}}, "goes from 3 to 2: give min below max"),
    "bare value": ({"parameters": {"model.width": 3}}, "a parameter is a mapping, not 3"),
    "early": ({"early_terminate": {"type": "hyperband"}}, "hyperband needs `min_iter:`"),
    "run_cap": ({"run_cap": 0}, "`run_cap:` is the largest number of trials, not 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    changes, text = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        read_sweep(_write(tmp_path, **changes))
    assert text in str(caught.value) and "sweep.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6


def test_a_misspelt_setting_and_one_that_changes_nothing_are_told_before_the_first_trial(tmp_path: Path) -> None:
    place = _place(tmp_path, parameters={"model.widht": {"values": [4]}})
    with pytest.raises(UserError, match="HelloModule has no argument 'widht'"):
        check_trials(place, listed_trials(place.sweep))
    command = ["fulgurite", "run", "hello", "--model.width", "4", "-c", "${args_json_file}"]
    place = _place(tmp_path, command=command)
    with pytest.raises(UserError, match=r"model\.width changes nothing: two trials come out the same"):
        check_trials(place, listed_trials(place.sweep))


def test_a_metric_that_the_experiment_has_not_is_told_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_metric("val/acuracy", resolve("hello"), tmp_path)
    text = str(caught.value)
    assert "hello is not known to have the metric 'val/acuracy'" in text and "Did you mean 'val/accuracy'" in text
    assert "train/loss" in text
    check_metric("generator/train/loss", resolve("dnd/tiny"), tmp_path)
    check_metric("val/psnr_clips", resolve("gamecraft/vae"), tmp_path)  # its name is made while running


def test_all_distributions_of_the_list_can_be_read() -> None:
    for kind in DISTRIBUTIONS:
        spec = {"constant": {"value": 1}, "categorical": {"values": [1]}}.get(kind, {"min": 1, "max": 2})
        if kind == "categorical_w_probabilities":
            spec = {"values": [1, 2], "probabilities": [0.4, 0.6]}
        if kind.endswith("normal"):
            spec = {"mu": 0, "sigma": 1}
        drawn = _parameter(distribution=kind, **spec).at(0.3)
        assert drawn in spec["values"] if "values" in spec else math.isfinite(drawn), kind
        assert not {"constant", "uniform", "int_uniform"} & {kind} or 1 <= drawn <= 2, kind


# What W&B's agent writes for a trial's parameters, by its own code: the same settings whichever macro the command uses.

_PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.floats(-10, 10), st.just("torch.optim.SGD"))
_NESTED = st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
_NAMES = st.sampled_from(["model.a", "model.b.c", "data.d", "trainer.e", "seed_everything"])
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


def _agents_words(parameters: dict[str, Any], macro: str) -> list[str]:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    found = create_sweep_command_args({"args": {k: {"value": v} for k, v in parameters.items()}})[macro]
    assert isinstance(found, list)
    return found


def _flat(words: list[str]) -> dict[str, Any]:
    merged = Settings()
    merged.merge(parse_flags(words))
    return {".".join(path): leaf.value for path, leaf in merged}


@settings(deadline=None)  # the first call imports wandb
@given(parameters=st.dictionaries(_NAMES, _NESTED, min_size=1))
def test_every_macro_of_wandbs_agent_gives_the_same_settings(parameters: dict[str, Any]) -> None:
    for macro in ("args", "args_no_equals", "args_no_hyphens", "args_json"):
        assert _flat(_agents_words(parameters, macro)) == parameters, macro


@settings(deadline=None)
@given(inner=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(_NESTED, _TEXT), min_size=1))
def test_nested_parameters_and_any_text_in_them_arrive(inner: dict[str, Any]) -> None:
    wanted = {f"model.{k}": v for k, v in inner.items()}
    for macro in ("args", "args_no_equals", "args_no_hyphens", "args_json"):
        assert _flat(_agents_words({"model": inner}, macro)) == wanted, macro
    assert json.loads(_agents_words({"model": inner}, "args_json")[0]) == {"model": inner}
