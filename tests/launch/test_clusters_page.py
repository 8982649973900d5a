"""docs/clusters.md: its commands are ones that the command line knows, over experiments and sweeps that there are."""

from __future__ import annotations

import re
import shlex

import pytest

from fulgurite.cli import _check_options, _parser, _split_settings, _verbs
from fulgurite.launch.config.experiment import parse_flags, resolve
from fulgurite.launch.sweeps.sweep_file import find_sweep
from fulgurite.registry import ROOT

PAGE = ROOT / "docs" / "clusters.md"


def _commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("fulgurite ")]
    return [re.split(r" {2,}", line)[0] for line in lines]


@pytest.mark.skipif(not PAGE.is_file(), reason="installed without docs/")
@pytest.mark.parametrize("command", _commands() if PAGE.is_file() else [])
def test_a_command_of_the_page_is_one_that_runs(command: str) -> None:
    words = shlex.split(command)[1:]
    assert words[0] in _verbs()
    _check_options(words)
    known, settings = _split_settings(words)
    if words[0] in ("run", "plan") and not known[1].startswith("runs/"):
        resolve(known[1], parse_flags(settings))
        _parser().parse_args(known)
    if words[0] == "sweep" and known[1] != "mine.yaml":
        assert find_sweep(known[1]).is_file()


def test_the_page_has_a_command_of_each_kind() -> None:
    if not PAGE.is_file():
        pytest.skip("installed without docs/")
    assert {shlex.split(c)[1] for c in _commands()} == {"plan", "sweep", "run", "runs", "export"}
