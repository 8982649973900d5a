"""What an experiment says about attention: `attention: paro` with `plan:`, or layer patterns and their backends."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..registry import ATTENTION, UserError, did_you_mean
from .api import AttentionBackend, make_backend
from .paro.plan import Plan

Choice = str | Mapping[str, Any]
AnyPlan = Plan | str | Path


def chosen_backends(
    layers: Sequence[str], counted: Collection[str], choice: Choice | None, plan: AnyPlan | None
) -> dict[str, AttentionBackend]:
    """The backend of each layer; a layer that is not in the answer follows `use_attention`.

    A backend that takes a plan gets this one, and serves the layers that plans count alone: a pattern as wide as `*`
    leaves the others (a text encoder's) as they are. All layers with one name share one backend.

    Args:
        layers: names of all attention layers.
        counted: those that a plan counts.
        choice: a backend's name; or patterns of layer names to backends' names, of which the last that fits counts, as
            `{"blocks.*": "paro"}` or `{"blocks": {"*": "paro"}}` (experiment files take dots apart); None =
            `use_attention`'s everywhere.
        plan: a plan or its file, for the backends that take one.

    Raises:
        UserError: for an unknown backend, a pattern that fits no layer or none that a plan counts, a plan that can't
            be read, that is missing, or that no chosen backend takes.
    """
    patterns = {"*": choice} if isinstance(choice, str) else _patterns(choice or {})
    planned = {name for name in patterns.values() if takes_plan(name)}
    if plan is None and planned:
        raise UserError(f"attention '{min(planned)}' needs a plan: name its file as 'plan'\n"
                        "fulgurite paro calibrate makes one.")  # fmt: skip
    if plan is not None and not planned:
        said = ", ".join(sorted(set(patterns.values()))) or "left as it is"
        raise UserError(f"a plan is given, and attention is {said}, which takes none\nSet attention to paro, or int4.")
    if isinstance(plan, str | Path):
        plan = Plan.load(plan)
    made = {name: make_backend(name, **({"plan": plan} if name in planned else {})) for name in patterns.values()}
    found: dict[str, AttentionBackend] = {}
    for pattern, name in patterns.items():
        fitting = fnmatch.filter(layers, pattern)
        if not fitting:
            raise UserError(_no_layer(pattern, layers))
        served = [layer for layer in fitting if layer in counted] if name in planned else fitting
        if not served:
            raise UserError(f"attention '{name}' for '{pattern}': no plan counts {fitting[0]}\n"
                            f"Plans are for {_span(counted)}.")  # fmt: skip
        found |= dict.fromkeys(served, made[name])
    return found


def takes_plan(name: str) -> bool:
    """Whether the backend of that name is made with a plan.

    Raises:
        UserError: for an unknown name.
    """
    backend: Any = ATTENTION[name]
    return "plan" in inspect.signature(backend).parameters


def _patterns(choice: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Patterns and names, with nested mappings' keys joined by dots."""
    found: dict[str, str] = {}
    for key, value in choice.items():
        if isinstance(value, Mapping):
            found |= _patterns(value, f"{before}{key}.")
        elif isinstance(value, str):
            found[before + key] = value
        else:
            raise UserError(f"attention: '{before}{key}' is {value!r}, no name of a backend\n"
                            "fulgurite list attention   shows all")  # fmt: skip
    return found


def _no_layer(pattern: str, layers: Sequence[str]) -> str:
    parts = [".".join(layer.split(".")[: i + 1]) for layer in layers for i in range(layer.count(".") + 1)]
    groups = [f"{group}.*" for group in dict.fromkeys(parts) if group not in layers]
    hint = did_you_mean(pattern, [*groups, *layers], f"There are {_span(layers)}.")
    return f"attention: no layer is called '{pattern}'\n{hint}"


def _span(layers: Collection[str]) -> str:
    names = list(layers)
    return ", ".join(names) if len(names) < 5 else f"{names[0]}, {names[1]}, … {names[-1]} ({len(names)} layers)"
