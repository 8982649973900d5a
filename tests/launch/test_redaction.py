"""Keys, tokens and passwords that are planted everywhere are in no file that a run writes; all else stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.launch.records.redaction import HIDDEN, redact

PLANTED = {
    "WANDB_API_KEY": "0a1b2c3d4e" * 4,
    "HF_TOKEN": "hf_PlantedTokenOfNobody12345",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret/of/nobody",
}
URL_PASSWORD, SETTING, SIGNATURE = "pw-of-nobody-1", "planted-setting-key-1", "c0ffee00planted"

LEAKY = f"""\
base: base/cpu
title: A run of https://nobody:{URL_PASSWORD}@example.org/data
seed_everything: 1
model:
  class_path: noisy.LeakyModule
  init_args:
    source: s3://user:{URL_PASSWORD}@bucket/data?X-Amz-Signature={SIGNATURE}
    api_key: {SETTING}
data: {{class_path: digits, init_args: {{batch_size: 16, num_batches: 3}}}}
trainer: {{max_epochs: 1}}
"""


@pytest.mark.parametrize("fails", [False, True], ids=["ends well", "fails"])
def test_planted_secrets_are_in_no_file_of_a_run_nor_in_wandbs(fails, forked, tmp_path):
    (tmp_path / "leaky.yaml").write_text(LEAKY)
    flags = ["--wandb", "p", "--model.fails", str(fails).lower(), "--model.api_key", SETTING]
    outcome = forked("run", "leaky.yaml", *flags, cwd=tmp_path, WANDB_MODE="offline", **PLANTED)
    assert (outcome.status == 0) is not fails, outcome.output
    (run,) = (tmp_path / "runs" / "leaky").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert HIDDEN in record["title"] and "example.org" in record["title"]
    assert (record["error"] is not None and "can't reach" in record["error"]) is fails
    files = [f for f in run.rglob("*") if f.is_file()]
    assert any(f.suffix == ".wandb" for f in files) and {"given.yaml", "report.md"} <= {f.name for f in files}
    secrets = [*PLANTED.values(), URL_PASSWORD, SETTING, SIGNATURE]
    found = [(f.relative_to(run), s) for f in files for s in secrets if s.encode() in f.read_bytes()]
    assert not found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("postgres://me:pass@host/db", f"postgres://me:{HIDDEN}@host/db"),
        ("https://host/f?token=abc&x=1", f"https://host/f?token={HIDDEN}&x=1"),
        ("fulgurite run x --model.api_key abcdefgh1 --a 2", f"fulgurite run x --model.api_key {HIDDEN} --a 2"),
        ("--model.hub_token=abcdefgh1", f"--model.hub_token={HIDDEN}"),
        ("token ghp_0123456789abcdefghij", f"token ghp_{HIDDEN}"),
    ],
)
def test_each_form_of_secret_is_hidden(text, wanted):
    assert redact(text) == wanted


@pytest.mark.parametrize(
    "plain",
    [
        {
            "max_new_tokens": 144,
            "num_tokens": "12345678",
            "tokenizer": "smollm2-135m-instruct",
            "key": "some/long/path",
        },
        "fulgurite run hello --model.max_new_tokens 1440000000 --data.tokens many-many-words",
        ["https://arxiv.org/abs/2506.16406", 3, None, 2.5, True],
        "step 5/100, 56.73 steps/s, 2 s left, train/loss 2.297",
    ],
)
def test_what_is_no_secret_stays_as_it_is(plain):
    assert redact(plain) == plain


@given(st.recursive(st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.booleans()), st.lists))
def test_anything_but_text_stays_as_it_is(content):
    assert redact(content) == content


def test_a_variable_is_hidden_wherever_its_value_stands(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    assert redact({"a": ["say correct-horse-battery!"]}) == {"a": [f"say {HIDDEN}!"]}
    monkeypatch.setenv("MY_SERVICE_TOKEN", "short")
    assert redact("a short word") == "a short word"


def test_no_record_of_the_repository_is_changed_by_it():
    for file in (Path(__file__).parents[2] / "docs" / "records").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        assert redact(content) == content
