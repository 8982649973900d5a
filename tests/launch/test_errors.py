"""Golden texts: what a user reads after each kind of mistake. Each is short, says where, and what to do next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fulgurite import cli

GOLDEN = yaml.safe_load((Path(__file__).parent / "golden_errors.yaml").read_text(encoding="utf-8"))


def cases(kind: str) -> list:
    return [pytest.param(c.get("files", {}), c["command"], c["says"], id=name) for name, c in GOLDEN[kind].items()]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(("files", "command", "wanted"), cases("without_torch"))
def test_text_of_a_mistake(files, command, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, files)
    assert cli.main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.err == f"fulgurite: {wanted}\n"
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 6
    assert [f.name for f in tmp_path.iterdir() if f.name not in files] == []  # no run folder was begun


@pytest.mark.slow
@pytest.mark.parametrize(("files", "command", "wanted"), cases("with_torch"))
def test_text_of_a_mistake_that_only_the_libraries_find(files, command, wanted, tmp_path, forked):
    write(tmp_path, files)
    outcome = forked(*command.split(), cwd=tmp_path, FULGURITE_ALLOW_IMPORTS="")
    assert outcome.status == 2, outcome.output
    text = re.sub(r"(?s).*^fulgurite: ", "", outcome.output, flags=re.MULTILINE)
    assert text == f"{wanted}\n"
    assert len(text.splitlines()) <= 6
