"""Prompt files: what is read, and what each kind of wrong file is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.dnd.prompts import read_prompts
from fulgurite.registry import UserError


def test_text_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes("\ufefffirst\r\n\r\n  second \u2028 still second\n{not json}".encode())
    assert read_prompts(file) == ["first", "second \u2028 still second", "{not json}"]


def test_json_lines_by_field(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a\\nb", "id": 3}\n\n{"prompt": "a\\nb"}\n')
    assert read_prompts(str(file)) == ["a\nb", "a\nb"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("p.txt", b"", "empty"),
        ("p.txt", b" \n\n", "empty"),
        ("p.txt", b"a\x00b", "binary"),
        ("p.txt", "ü\n".encode("utf-16"), "binary"),
        ("p.txt", b"fine\nM\xfcnchen\n", "p.txt:2: not UTF-8 (byte 0xfc)"),
        ("p.jsonl", b'{"prompt": "a"}\n{"question": "b"}\n', "p.jsonl:2: no field 'prompt' (fields: 'question')"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', "p.jsonl:2: field 'prompt' is a int"),
        ("p.jsonl", b'{"prompt": " "}\n', "p.jsonl:1: field 'prompt' is blank"),
        ("p.jsonl", b'{"prompt": "\\ud800"}\n', "surrogate"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "p.jsonl:2: not JSON"),
        ("p.jsonl", b'["a"]\n', "p.jsonl:1: a list"),
        ("p.jsonl", b"[" * 100_000, "p.jsonl:1: not JSON"),
        ("p.json", b'["a"]', ".jsonl"),
        ("p.txt", b"fine\n" + b"word " * 1_000_000, "p.txt:2: a line of 5,000,000 letters; 100,000 is the most"),
        ("p.jsonl", b'{"prompt": "' + b"x" * 200_000 + b'"}\n', "p.jsonl:1: a line of 200,014 letters"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_prompts(file)
    assert part in str(caught.value) and str(caught.value).count("\n") < 6


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_prompts(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="folder"):
        read_prompts(tmp_path)


def test_a_hundred_thousand_prompts(tmp_path: Path) -> None:
    for file, line in ((tmp_path / "p.txt", "prompt {}"), (tmp_path / "p.jsonl", '{{"prompt": "prompt {}"}}')):
        file.write_text("\n".join(line.format(i) for i in range(100_000)))
        begin = time.process_time()
        prompts = read_prompts(file)
        assert len(prompts) == 100_000 and prompts[-1] == "prompt 99999"
        assert time.process_time() - begin < 20  # about 0.3 s; a quadratic reader takes minutes


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_give_prompts_or_a_user_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("p")
    for name in ("p.txt", "p.jsonl"):
        (folder / name).write_bytes(content)
        try:
            prompts = read_prompts(folder / name)
        except UserError:
            continue
        assert prompts and all(prompt.strip() == prompt != "" for prompt in prompts)


@settings(max_examples=100, deadline=None)
@given(prompts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_json_lines_round_trip(prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = [prompt.strip() for prompt in prompts if prompt.strip()]
    file = tmp_path_factory.mktemp("p") / "p.jsonl"
    file.write_text(
        "\n".join(json.dumps({"prompt": p}, ensure_ascii=False) for p in kept), encoding="utf-8", newline=""
    )
    if kept and not any("\0" in prompt for prompt in kept):
        assert read_prompts(file) == kept
