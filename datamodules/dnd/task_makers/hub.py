"""Data sets of the Hugging Face hub, through the package `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ....registry import UserError, install_line
from ..examples import Item

_COLUMNS = (("prompt", "response"), ("question", "answer"), ("instruction", "output"), ("input", "target"))


def make_items(name: str) -> list[Item]:
    """Items out of every split of a hub data set; key = prompt, and the splits are ours.

    Args:
        name: `org/name` or `org/name/config`. Its columns have to be prompt and response, question and answer,
            instruction and output, or input and target; `choices` is taken if it is a list of texts.

    Raises:
        UserError: if `datasets` is missing, the set cannot be loaded, or has none of these columns.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"'hf:{name}' needs the package datasets\n{install_line('dnd')}") from None
    org, _, rest = name.partition("/")
    short, _, config = rest.partition("/")
    try:
        splits: Mapping[str, Iterable[dict[str, Any]]] = datasets.load_dataset(f"{org}/{short}", config or None)
    except Exception as error:  # the hub's client raises many kinds
        raise UserError(f"'hf:{name}' cannot be loaded: {type(error).__name__}: {str(error)[:200]}") from None
    items = []
    for split in splits.values():
        for row in split:
            items.append(_item(name, row))
    return [item for item in items if item.prompts[0] and item.response]


def _item(name: str, row: dict[str, Any]) -> Item:
    for asked, answered in _COLUMNS:
        if isinstance(row.get(asked), str) and isinstance(row.get(answered), str):
            prompt, response = row[asked].strip(), row[answered].strip()
            choices = row.get("choices")
            fits = isinstance(choices, list) and response in choices
            return Item(prompt, (prompt,), response, tuple(choices) if fits and choices else ())
    pairs = ", ".join(f"{a}/{b}" for a, b in _COLUMNS)
    raise UserError(f"'hf:{name}' has the columns {', '.join(map(str, row))}\nand not one of the text pairs {pairs}")
