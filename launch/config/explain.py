"""`fulgurite explain`: where each value of an experiment came from."""

from __future__ import annotations

from ...registry import UserError, did_you_mean
from ..records.tables import print_table
from .experiment import Experiment, Stage
from .settings import Leaf, short_path
from .signatures import parameters


def print_explanation(experiment: Experiment, key: str | None) -> None:
    """Print key, value and origin of every leaf, or of those at and below `key`.

    Raises:
        UserError: if no stage knows the key; with the nearest ones.
    """
    rows = [row for stage in experiment.stages for row in _rows(stage, experiment)]
    if key:
        chosen = [row for row in rows if row[0] == key or row[0].startswith(key + ".") or _short(row[0]) == key]
        rows = chosen or _default(experiment, key)
        if not rows:
            known = [_short(r[0]) for s in experiment.stages for r in _rows(s, experiment)]
            hint = did_you_mean(key, known, show=str, end="\n")
            raise UserError(
                f"{experiment.name} has no key '{key}'\n{hint}fulgurite explain {experiment.name}   shows every key"
            )
    print_table(rows, header=("key", "value", "set by"))


def _rows(stage: Stage, experiment: Experiment) -> list[tuple[str, str, str]]:
    plain = len(experiment.stages) <= 2 and experiment.meta.get("stages") is None
    prefix = "" if plain else f"{stage.name}."
    if plain and stage.name != "fit":
        return []
    return [(prefix + ".".join(path), _text(leaf.value), _origins(leaf)) for path, leaf in stage.settings]


def _origins(leaf: Leaf) -> str:
    text, older = leaf.origin, leaf.replaced
    while older:
        text += f", over {older.origin} ({_text(older.value)})"
        older = older.replaced
    return text


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _short(key: str) -> str:
    return key.replace(".init_args", "")


def _default(experiment: Experiment, key: str) -> list[tuple[str, str, str]]:
    """A key that nobody set, but that the class has: its default, and where that stands."""
    for stage in experiment.stages:
        prefix = f"{stage.name}."
        path = tuple(key.removeprefix(prefix).split("."))
        owner = {"trainer": "lightning.pytorch.Trainer"}.get(path[0]) or stage.settings.get(path[0], "class_path")
        found = (parameters(owner) or {}).get(path[-1]) if owner else None
        if found and len(path) in (2, 3):
            return [(key, found.default or "(required)", f"default, {short_path(found.file)}:{found.line}")]
    return []
