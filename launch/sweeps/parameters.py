"""A sweep's parameters as W&B writes them: constants, lists of values, distributions, nested mappings.

Every parameter maps a number u in [0, 1) to a value by the inverse of its distribution function, so random search draws
uniform numbers and a model-based search explores the unit cube, whatever the distributions are.

Source: https://docs.wandb.ai/models/sweeps/sweep-config-keys (keys and distributions).
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...registry import UserError, did_you_mean

KEYS = (
    "value", "values", "probabilities", "distribution", "min", "max", "mu", "sigma", "q", "parameters", "description",
)  # fmt: skip
_RANGES = (
    "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values", "q_log_uniform",
    "q_log_uniform_values", "inv_log_uniform", "inv_log_uniform_values",
)  # fmt: skip
_NORMALS = ("normal", "q_normal", "log_normal", "q_log_normal")
DISTRIBUTIONS = ("constant", "categorical", "categorical_w_probabilities", *_RANGES, *_NORMALS)
_LISTABLE = ("int_uniform", "q_uniform")
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        name: dotted key of the setting that it changes.
        at: value at a point u in [0, 1).
        values: all values in order, where there are finitely many to go through; else None.
        is_choice: whether neighbouring points have nothing in common (a list of values).
    """

    name: str
    at: Callable[[float], Any]
    values: tuple[Any, ...] | None
    is_choice: bool


def read_parameters(tree: Any, where: Callable[[tuple[str, ...]], str]) -> list[Parameter]:
    """The parameters of a sweep file's `parameters:`, nested ones by their dotted names, in the file's order.

    Args:
        tree: what stands under `parameters:`.
        where: the file and line of a path below it, for errors.

    Raises:
        UserError: for anything that W&B does not know, or whose numbers make no sense.
    """
    found = list(_walk(tree, (), where))
    names = [p.name for p in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where(())}: the parameter '{name}' stands there twice\nKeep one of the two.")
    return found


def _walk(tree: Any, above: tuple[str, ...], where: Callable[[tuple[str, ...]], str]) -> Iterator[Parameter]:
    if not isinstance(tree, dict) or not tree:
        raise UserError(
            f"{where(above)}: `parameters:` is a mapping of settings to what they may be\n"
            "Such as   model.width: {values: [8, 16]}"
        )
    for key, spec in tree.items():
        path = (*above, str(key))
        if not isinstance(spec, dict):
            raise UserError(
                f"{where(path)}: a parameter is a mapping, not {spec!r}\n"
                f"Write {{value: …}} for one that stays the same, or {{values: […]}}."[:300]
            )
        for word in spec:
            if word not in KEYS:
                hint = did_you_mean(str(word), list(KEYS), f"Known here: {', '.join(KEYS)}.")
                raise UserError(f"{where((*path, str(word)))}: unknown key '{word}' of the parameter '{key}'\n{hint}")
        if "parameters" in spec:
            yield from _walk(spec["parameters"], path, where)
        else:
            yield _parameter(".".join(path), spec, where(path))


def _parameter(name: str, spec: dict[str, Any], where: str) -> Parameter:
    kind = _kind(name, spec, where)
    if kind == "constant":
        value = spec["value"]
        return Parameter(name, lambda u: value, (value,), True)
    if kind in ("categorical", "categorical_w_probabilities"):
        return _choice(name, spec, where)
    inverse = _inverse(name, kind, spec, where)
    return Parameter(name, inverse, _listed(kind, spec) if kind in _LISTABLE else None, False)


def _kind(name: str, spec: Mapping[str, Any], where: str) -> str:
    kind = spec.get("distribution")
    if kind is None:
        if "value" in spec:
            kind = "constant"
        elif "values" in spec:
            kind = "categorical"
        elif "min" in spec and "max" in spec:
            kind = "int_uniform" if type(spec["min"]) is type(spec["max"]) is int else "uniform"
        elif "mu" in spec and "sigma" in spec:
            kind = "normal"
        else:
            raise UserError(
                f"{where}: the parameter '{name}' says not what it may be\n"
                "Give it value, values, min and max, or a distribution."
            )
    if kind not in DISTRIBUTIONS:
        hint = did_you_mean(str(kind), list(DISTRIBUTIONS), f"Known: {', '.join(DISTRIBUTIONS)}.")
        raise UserError(f"{where}: no distribution '{kind}'\n{hint}")
    needs = {"constant": ("value",), "categorical": ("values",), "categorical_w_probabilities": ("values",)}
    wanted = needs.get(str(kind)) or (("min", "max") if kind in _RANGES else ())
    for key in wanted:
        if key not in spec:
            raise UserError(f"{where}: '{name}' is {kind} and needs `{key}:`")
    return str(kind)


def _choice(name: str, spec: Mapping[str, Any], where: str) -> Parameter:
    values, weights = spec["values"], spec.get("probabilities")
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: `values:` of '{name}' is a list of one value or more")
    if weights is None:
        weights = [1 / len(values)] * len(values)
    fits = isinstance(weights, list) and len(weights) == len(values) and all(_is_number(w) and w >= 0 for w in weights)
    if not fits or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise UserError(f"{where}: `probabilities:` of '{name}' are {len(values)} numbers that add up to 1")
    edges = list(itertools.accumulate(weights))[:-1]
    return Parameter(name, lambda u: values[bisect.bisect_right(edges, u)], tuple(values), True)


def _inverse(name: str, kind: str, spec: Mapping[str, Any], where: str) -> Callable[[float], Any]:
    """The inverse distribution function of a numeric parameter."""
    numbers = {key: spec[key] for key in ("min", "max", "mu", "sigma", "q") if key in spec}
    for key, value in numbers.items():
        if not _is_number(value):
            raise UserError(f"{where}: `{key}:` of '{name}' is a number, not {value!r}")
    step = numbers.get("q", 1) if kind.startswith("q_") else None
    if step is not None and step <= 0:
        raise UserError(f"{where}: `q:` of '{name}' is a step above 0, not {step!r}")
    if kind in _NORMALS:
        mu, sigma = numbers.get("mu", 0.0), numbers.get("sigma", 1.0)
        if sigma <= 0:
            raise UserError(f"{where}: `sigma:` of '{name}' is above 0, not {sigma!r}")
        normal, is_log = statistics.NormalDist(mu, sigma), "log" in kind

        def of_normal(u: float) -> float:
            value = normal.inv_cdf(min(max(u, 1e-9), 1 - 1e-9))
            return math.exp(value) if is_log else value

        return _stepped(of_normal, step)
    low, high = numbers["min"], numbers["max"]
    if kind.endswith("_values") and min(low, high) <= 0:
        raise UserError(f"{where}: '{name}' is {kind}, so min and max are above 0")
    if not low < high and not (kind == "int_uniform" and low == high):
        raise UserError(f"{where}: '{name}' goes from {low!r} to {high!r}: give min below max")
    if kind == "int_uniform":
        first, last = int(low), int(high)
        return lambda u: first + min(int(u * (last - first + 1)), last - first)
    if kind in ("uniform", "q_uniform"):
        return _stepped(lambda u: low + u * (high - low), step)
    if kind.endswith("_values"):
        low, high = math.log(low), math.log(high)
    if kind == "inv_log_uniform":  # log(1 / x) is uniform from min to max
        return lambda u: math.exp(-(low + u * (high - low)))
    return _stepped(lambda u: math.exp(low + u * (high - low)), step)


def _stepped(inverse: Callable[[float], float], step: float | None) -> Callable[[float], float]:
    """W&B's quantised distributions: round(x / q) * q, a whole number where q is one."""
    if step is None:
        return inverse
    return lambda u: round(inverse(u) / step) * step


def _listed(kind: str, spec: Mapping[str, Any]) -> tuple[Any, ...] | None:
    step = 1 if kind == "int_uniform" else spec.get("q", 1)
    first, last = round(spec["min"] / step), round(spec["max"] / step)
    return tuple(n * step for n in range(first, last + 1)) if last - first < MOST_LISTED else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
