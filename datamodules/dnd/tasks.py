"""Tasks by name: `load_task("plural")`, `load_task("jsonl:mine.jsonl")`, and the list of them."""

from __future__ import annotations

from pathlib import Path

from ...registry import COMMANDS, UserError, unknown
from ..sources.catalogue import SOURCES
from ..sources.download import fetch
from .examples import Example, Task, build_task
from .task_makers import bigbench, geography, hub, inflection, jsonl, languages, reasoning

__all__ = ["Example", "Task", "list_tasks", "load_task"]

_NAMED = {name: maker for maker in (inflection, geography, languages) for name in maker.TASKS}
_PREFIXES = {
    "jsonl": "your own JSON lines with prompt, response and, if you like, choices",
    "hf": "a data set of the Hugging Face hub with columns such as prompt and response",
    "bigbench": "a task of BIG-bench, such as bigbench:fact_checker/fever",
    "reasoning_gym": "a generator of reasoning-gym, such as reasoning_gym:spell_backward",
}


def list_tasks() -> dict[str, str]:
    """Name -> one line, of every task that can be named, and `prefix:...` for the families."""
    named = {name: maker.TASKS[name] for name, maker in sorted(_NAMED.items())}
    return {
        **named,
        **{f"bigbench:{name}": f"BIG-bench {name}" for name in bigbench.task_names()},
        **{f"{prefix}:...": summary for prefix, summary in _PREFIXES.items()},
    }


@COMMANDS.register("dnd tasks")
def print_tasks() -> None:
    """List the tasks that can be named, and how to name your own."""
    for name, summary in list_tasks().items():
        print(f"{name:44s} {summary}")


def load_task(spec: str, *, limit: int | None = None, seed: int = 0) -> Task:
    """The examples of a task, fetching its source if the cache lacks it.

    The same word, country or prompt is in the same split of every task, so what is tested on was never trained on.

    Args:
        spec: a name of `list_tasks`, or `jsonl:FILE`, `hf:org/name`, `bigbench:task/subtask`,
            `reasoning_gym:generator`.
        limit: most examples in each of train, val and test.
        seed: of the order, paraphrases and order of choices in train, and of generators.

    Raises:
        UserError: unknown task, missing package, source that cannot be fetched, or a file with a mistake in it.
    """
    prefix, colon, rest = spec.partition(":")
    if spec in _NAMED:
        maker = _NAMED[spec]
        source = SOURCES[maker.SOURCE]
        return build_task(
            spec,
            maker.make_items(spec, fetch(source.name)),
            source=f"{source.distribution} {source.version}",
            licence=source.licence,
            limit=limit,
            seed=seed,
            every_paraphrase=maker is not inflection,  # few countries and languages, many words
        )
    if not colon or prefix not in _PREFIXES:
        raise UserError(unknown("task", spec, list(list_tasks()), "fulgurite dnd tasks"))
    if not rest:
        raise UserError(f"'{spec}' lacks what follows the colon: {_PREFIXES[prefix]}")
    if prefix == "jsonl":
        return jsonl.load(spec, Path(rest).expanduser(), limit=limit, seed=seed)
    if prefix == "bigbench":
        source = SOURCES[bigbench.SOURCE]
        items, licence = bigbench.make_items(rest, fetch(source.name)), source.licence
    elif prefix == "reasoning_gym":
        items, licence = reasoning.make_items(rest, limit=limit, seed=seed), "Apache-2.0"
    else:
        items, licence = hub.make_items(rest), "see the data set's card"
    return build_task(spec, items, source=spec, licence=licence, limit=limit, seed=seed)
