"""Small tasks of our own, and the released material where it lies beside the clone."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulgurite.registry import ROOT

Truth = dict[str, Any]


@pytest.fixture(scope="session")
def released() -> Path:
    """Folder of released VIKI-Bench material with the cases that the released code was run on."""
    found = next(ROOT.resolve().parent.glob("*/data/viki/viki_parity_examples.jsonl"), None)
    if found is None:
        pytest.skip("needs the released VIKI-Bench material beside the clone (*/data/viki); see the paper's README")
    return found.parent


@pytest.fixture(scope="session")
def released_json(released: Path) -> Callable[[str], Any]:
    """Reads one of its compressed JSON files."""
    return lambda name: json.loads(lzma.decompress((released / name).read_bytes()))


@pytest.fixture(scope="session")
def truth() -> Callable[..., Truth]:
    """Makes a ground truth: robots, where things start, goals `apple at plate` or `sink on`, chains of such."""

    def fact(text: str) -> dict[str, Any]:
        name, at, place = text.partition(" at ")
        status: dict[str, Any] = {"pos.name": place} if at else {"is_activated": True}
        return {"type": "asset", "name": name if at else text[:-3], "is_satisfied": True, "status": status}

    def make(
        robots: dict[str, str],
        starts: dict[str, Any],
        goals: list[str],
        chains: list[list[str]] | None = None,
        steps: int = 20,
    ) -> Truth:
        places = {f"{n}_{i}": [a] if isinstance(a, str) else a for i, (n, a) in enumerate(starts.items())}
        return {
            "description": "", "task_id": "0_0-0", "task_name": "", "layout_id": 0, "robots": robots, "idle_robots": [],
            "init_pos": places, "goal_constraints": [[fact(g)] for g in goals],
            "temporal_constraints": [[[fact(f)] for f in chain] for chain in chains or []],
            "time_steps": [{"step": i + 1, "actions": {}} for i in range(steps)],
        }  # fmt: skip

    return make


@pytest.fixture(scope="session")
def plan() -> Callable[..., list[dict[str, Any]]]:
    """Makes a plan of steps such as `R1 Move apple | R2 Push cardboardbox, R1`."""

    def make(*steps: str) -> list[dict[str, Any]]:
        rows = []
        for number, step in enumerate(steps, 1):
            actions = {}
            for part in filter(None, step.split(" | ")):
                robot, primitive, *targets = part.split(" ", 2)
                actions[robot] = [primitive, *(t.strip() for t in (targets[0].split(",") if targets else []))]
            rows.append({"step": number, "actions": actions})
        return rows

    return make
