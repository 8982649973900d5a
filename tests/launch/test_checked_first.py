"""Mistakes in a command's arguments are told before torch and its libraries, which take seconds, are imported."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """\
import json, sys
tried = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning", "transformers"):
            tried.append(name)
sys.meta_path.insert(0, Watch())
from fulgurite.cli import main
for line in json.loads(sys.argv[1]):
    assert main(line) == 2 and not tried, (line, tried)
try:
    main(["dnd", "adapt", "--help"])
except SystemExit as stop:
    assert stop.code == 0 and not tried
"""
MISTAKES = {
    "dnd adapt --prompts p --out o --seed -1": "--seed is a whole number",
    "dnd collect --out o --rank 3": "--rank is 3",
    "dnd train --store s --out o --held_out [a] --loss x": "--loss is 'x'",
    "dnd import --adapters [a] --prompts [] --out o": "1 adapters and 0 files",
    "dnd compare --store s --variants [] --test [a] --out o": "at least one variant",
    "dnd compare --store s --variants [b/a,c/a] --test [a] --out o": "two folders are called 'a'",
    "gamecraft evaluate --data d --vae v --idm i --out o": "nothing to evaluate",
    "gamecraft compare --data d --vae v --idm i --models {} --out o": "nothing to compare",
    "paro calibrate --model m --out o --density 2": "--density is a share",
    "viki solve own x": '"own" stands for',
    "viki solve x.jpg x --robots R1=toaster": "a team is written",
    "chunking ask --question q --k 0": "--k 0: a whole number",
}


def test_arguments_are_checked_before_slow_imports(tmp_path, child_environment) -> None:
    lines = json.dumps([line.split() for line in MISTAKES])
    command = [sys.executable, "-c", PROGRAM, lines]
    done = subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("fulgurite: ")]
    assert len(told) == len(MISTAKES)
    for line, text in zip(told, MISTAKES.values(), strict=True):
        assert text in line
