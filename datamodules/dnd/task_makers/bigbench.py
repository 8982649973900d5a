"""Tasks of BIG-bench (arXiv 2206.04615), as far as the source `bigbench` keeps them.

BIG-bench is one evaluation set per task: the split into train, val and test is ours, so scores are not comparable with
published ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ....registry import UserError, did_you_mean
from ...sources.catalogue import SOURCES
from ..examples import Item
from .tables import reading

SOURCE = "bigbench"
# what several examples of a task share beyond the prompt, and must not lie in two splits
_KEYS = {
    "vitaminc_fact_verification": re.compile(r"^([^:\n]+):"),  # the Wikipedia page
    "goal_step_wikihow/step_ordering": re.compile(r"^In order to '(.+?)', one can"),  # the goal
}


def task_names() -> list[str]:
    """The tasks that the source keeps, such as `fact_checker/fever`."""
    return [m.pattern.removeprefix(m.strip).removesuffix("/task.json") for m in SOURCES[SOURCE].members]


def make_items(name: str, folder: Path) -> list[Item]:
    """The items of one task.

    The prompt is put together as BIG-bench does: prefix, input, the choices where the task appends them. An example
    with several right answers counts with its first.

    Args:
        name: path of the task, such as `fact_checker/fever`.
        folder: the fetched source.

    Raises:
        UserError: if there is no such task, or its file cannot be read.
    """
    file = folder / name / "task.json"
    if name not in task_names():
        hint = did_you_mean(name, task_names(), f"There are: {', '.join(task_names())}")
        raise UserError(f"the bigbench source keeps no task '{name}'\n{hint}")
    with reading(file, SOURCE):
        content = json.loads(file.read_text(encoding="utf-8"))
        items = [_item(name, content, example) for example in content["examples"]]
    return [item for item in items if item is not None]


def _item(name: str, content: dict[str, Any], example: dict[str, Any]) -> Item | None:
    asked = example["input"].strip()
    scores = {choice.strip(): score for choice, score in example.get("target_scores", {}).items()}
    if scores:
        choices, response = tuple(scores), max(scores, key=lambda choice: scores[choice])
    else:
        target = example["target"]
        choices, response = (), (target[0] if isinstance(target, list) else target).strip()
    if not asked or not response:
        return None
    listed = sorted(choices) if content.get("append_choices_to_input", True) else []
    prefix, before = content.get("task_prefix", ""), content.get("example_input_prefix", "")
    after = content.get("example_output_prefix", "")
    body = _joined(prefix, _joined(before, asked, " "), "\n")
    prompt = body + "".join(f"\n  choice: {choice}" for choice in listed) + after
    shared = _KEYS[name].match(asked) if name in _KEYS else None
    return Item(shared[1] if shared else asked, (prompt.strip(),), response, choices)


def _joined(before: str, text: str, gap: str) -> str:
    """Some tasks' prefixes end without the white space that what follows needs."""
    touching = before and not before[-1].isspace() and not text[:1].isspace()
    return before + (gap if touching else "") + text
