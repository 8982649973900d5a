"""Tasks that differ in names alone share one search for their shortest plan."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from .planner import shortest_plan
from .plans import Step
from .problem import Facts, Problem
from .vocabulary import areas, objects

_FOUND: dict[Hashable, list[Step]] = {}


def minimum(problem: Problem) -> list[Step]:
    """The shortest plan under the strict rules; see `planner.shortest_plan`.

    Raises:
        NoPlanError: if there is none.
    """
    names = _general_names(problem)
    pattern = _pattern(problem, names)
    if pattern not in _FOUND:
        _FOUND[pattern] = [_renamed(step, names) for step in shortest_plan(problem)]
    own = {general: name for name, general in names.items()}
    return [_renamed(step, own) for step in _FOUND[pattern]]


def _general_names(problem: Problem) -> dict[str, str]:
    """Names of the task -> names by number: things in the record's order, areas as they occur, robots by make."""
    by_make = sorted(
        range(len(problem.agents)),
        key=lambda i: (problem.hands[i], sorted(problem.primitives[i]), problem.agents[i]),
    )
    names = {problem.agents[i]: f"robot {n}" for n, i in enumerate(by_make)}
    names |= {name: f"thing {i}" for i, name in enumerate(problem.assets) if name in objects()}
    mentioned: Iterable[object] = (
        *(area for choices in problem.starts for area in choices),
        *(fact.value for facts in (*problem.goals, *(f for chain in problem.chains for f in chain)) for fact in facts),
    )
    places = list(dict.fromkeys(name for name in mentioned if name in areas()))
    return names | {str(name): f"area {n}" for n, name in enumerate(places)}


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    found = {}
    for robot, command in step.items():
        primitive, *targets = command.split(",")
        found[names[robot]] = ",".join((primitive, *(names.get(target, target) for target in targets)))
    return found


def _pattern(problem: Problem, names: Mapping[str, str]) -> Hashable:
    def general(facts: Facts) -> Hashable:
        return tuple(
            (f.kind, names.get(f.name, f.name), f.path, names.get(f.value, f.value), f.wanted, f.aligned) for f in facts
        )

    assets = tuple(
        (names.get(name, name), container, portable, holds, "box" in name)
        for name, container, portable, holds in zip(
            problem.assets, problem.containers, problem.portable, problem.holds, strict=True
        )
    )
    makes = sorted(
        (names[agent], hands, tuple(sorted(primitives)))
        for agent, hands, primitives in zip(problem.agents, problem.hands, problem.primitives, strict=True)
    )
    starts = tuple(tuple(names.get(area, area) for area in choices) for choices in problem.starts)
    chains = tuple(tuple(map(general, chain)) for chain in problem.chains)
    return assets, tuple(makes), starts, tuple(map(general, problem.goals)), chains
