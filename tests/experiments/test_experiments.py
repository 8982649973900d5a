"""Every experiment file of the package: it resolves, says what it is and what it needs, and runs if small."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from fulgurite.datamodules.sources.catalogue import SOURCES
from fulgurite.launch.config.experiment import EXPERIMENTS, LIGHTNING_VERBS, names, resolve
from fulgurite.launch.config.needs import sources_of

SMALL = [n for n in names() if n.rpartition("/")[2] in ("hello", "smoke")]


@pytest.mark.parametrize("name", names())
def test_resolves_and_tells_what_it_is(name):
    experiment = resolve(name)
    assert experiment.stages
    assert experiment.meta["title"]
    comment = [line for line in (EXPERIMENTS / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    runs = name.rpartition("/")[2] in ("hello", "smoke", "tiny", "gpu", "paper")
    if runs:
        assert any(f"fulgurite run {name}" in line for line in comment), "the header names no command"
        estimate = experiment.meta["estimate"]
        assert {"minutes", "memory_gb", "disk_gb"} <= estimate.keys()
        assert all(value > 0 for value in estimate.values() if isinstance(value, int | float))
    if name.endswith("/tiny"):
        assert experiment.meta["estimate"]["minutes"] <= 6


@pytest.mark.parametrize("name", names())
def test_every_anchor_is_used(name):
    """One that is not makes a reader look for what repeats."""
    events = list(yaml.parse((EXPERIMENTS / f"{name}.yaml").read_text()))
    used = {event.anchor for event in events if isinstance(event, yaml.AliasEvent)}
    others = (getattr(event, "anchor", None) for event in events if not isinstance(event, yaml.AliasEvent))
    assert {anchor for anchor in others if anchor} == used


@pytest.mark.parametrize("name", names())
def test_its_sources_are_in_the_catalogue(name):
    for source in sources_of(resolve(name)):
        assert source in SOURCES or re.fullmatch(r"hf:[\w.-]+/[\w.-]+", source)


@pytest.mark.parametrize("name", names())
def test_a_paper_s_number_says_where_it_stands(name):
    published = resolve(name).meta["published"]
    assert published is None or isinstance(published, dict | list)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SMALL)
def test_runs_to_a_report(name, finished_run):
    run, stderr = (done := finished_run(name)).path, done.stderr
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "done"
    assert [s["name"] for s in record["stages"]] == [s.name for s in resolve(name).stages]
    assert record["metrics"]
    if name == "hello":
        assert record["metrics"]["test/accuracy"] > 0.9 > 5 * record["metrics"]["test/accuracy_constant"]
    assert (run / "report.md").stat().st_size > 200
    noise = ("weights_only", "treespec", "Seed set to", "tip:", "Traceback", "litlogger")
    assert not [word for word in noise if word in stderr], stderr


@pytest.mark.parametrize("name", names())
def test_every_lightning_stage_names_a_model_and_knows_where_each_value_came_from(name):
    for stage in resolve(name).stages:
        if stage.verb in LIGHTNING_VERBS:
            assert stage.settings.get("model", "class_path")
        assert all(leaf.origin not in ("", "?") for _, leaf in stage.settings)
