"""Whatever stands in an experiment file, it is an experiment or it is refused in a few lines."""

# ruff: noqa: E501  (lists of words and of hostile texts)

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulgurite.launch.config.experiment import resolve
from fulgurite.registry import UserError

WORDS = st.sampled_from(
    ["base", "stages", "model", "data", "trainer", "class_path", "init_args", "name", "verb", "experiment", "overrides", "command",
     "seed_everything", "hello", "digits", "base/cpu", "fit", "test", "max_epochs", "callbacks", "width", "torch.optim.AdamW", "a.b", ""]
)  # fmt: skip
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def resolve_or_refuse(file: Path) -> None:
    try:
        resolve(str(file))
    except UserError as error:
        assert 1 <= len(str(error).splitlines()) <= 6


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(WORDS, TREES, max_size=5))
def test_any_mapping_is_an_experiment_or_refused_in_a_few_lines(tmp_path, tree):
    import yaml

    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    resolve_or_refuse(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [
                *"ab:-[]{}#&*!|>%@'\"\\,?.0123 \n\t",
                "<<",
                "base: ",
                "model: ",
                "stages:\n- name: ",
                "&x ",
                "*x",
                "!!",
                "${",
                "2020-",
                "\x00",
                "é",
            ]
        ),
        max_size=40,
    )
)
def test_any_text_is_an_experiment_or_refused_in_a_few_lines(tmp_path, pieces):
    file = tmp_path / "any.yaml"
    file.write_text("".join(pieces), encoding="utf-8")
    resolve_or_refuse(file)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_an_experiment_or_refused_in_a_few_lines(tmp_path, content):
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    resolve_or_refuse(file)


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "a: &a {b: *a}", "[" * 5000, "{a: " * 2000, "\n".join(["a0: &a0 {x: 1}"] + [f"a{n + 1}: &a{n + 1} {{x: *a{n}, y: *a{n}}}" for n in range(30)])],
    ids=["list in itself", "mapping in itself", "deep list", "deep mapping", "bomb of aliases"],
)  # fmt: skip
def test_hostile_files_are_refused(text, tmp_path):
    file = tmp_path / "hostile.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"hostile\.yaml"):
        resolve(str(file))
