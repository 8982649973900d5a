"""What an experiment has to have in the cache: its own sources, and those of the experiments that its stages name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from .experiment import Experiment, chain, find
from .key_check import expand_names
from .settings import Settings, read_yaml
from .signatures import parameters


def sources_of(experiment: Experiment) -> list[str]:
    """Names of the sources, each once: the experiment's own `sources:`, then those of its stages' experiments. One of
    the latter that a stage's settings named, and that the experiment has put something else in the place of, is left
    out: dnd/smoke trains another base model than dnd/lora.

    Raises:
        UserError: if a file can't be read.
    """
    own = list(experiment.meta.get("sources") or [])
    found = [*own]
    resolved = {stage.name: stage for stage in experiment.stages}
    for item in experiment.meta.get("stages") or []:
        if not item.get("experiment"):
            continue
        theirs = Settings()
        for file in chain(find(str(item["experiment"]), beside=experiment.file.parent)):
            theirs.merge(read_yaml(file).items())
        sources = theirs.get("sources") or []
        expand_names(theirs)
        before, now = set(_named(theirs)), set(_named(resolved[item["name"]].settings))
        found += [s for s in sources if s in now or s not in before]
    return list(dict.fromkeys(found))


def _named(settings: Settings) -> Iterator[str]:
    """Every text among the values of model and data, the defaults of their classes' arguments included."""
    for part in ("model", "data"):
        given: dict[str, Any] = settings.get(part, "init_args") or {}
        yield from (v for v in given.values() if isinstance(v, str))
        for name, parameter in (parameters(str(settings.get(part, "class_path"))) or {}).items():
            if name not in given and parameter.default and parameter.default[0] in "'\"":
                yield str(ast.literal_eval(parameter.default))
