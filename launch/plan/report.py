"""A plan for people: one block a stage."""

from __future__ import annotations

import argparse
from collections.abc import Hashable
from pathlib import Path

from ...registry import UserError
from ..config.experiment import parse_flags, resolve
from ..records.tables import print_table
from ..stages.estimate import duration
from .cards import Card, find_card
from .count import Counted
from .plan import StagePlan, plan_stage


def print_plan(options: argparse.Namespace, files: list[Path]) -> None:
    """Print what each stage of an experiment would take.

    Raises:
        UserError: for an unknown experiment, key or card.
    """
    card = find_card(options.card)
    if not 0 < options.utilisation <= 1:
        raise UserError(f"--utilisation {options.utilisation}: a share of the card's peak, above 0 and at most 1")
    experiment = resolve(options.experiment, parse_flags(options.settings), files)
    print(f"{experiment.name} on {card.title}, at {options.utilisation:.0%} of its peak")
    known: dict[Hashable, Counted] = {}
    hours = device_hours = 0.0
    for stage in experiment.stages:
        found = plan_stage(stage, experiment, card, options.utilisation, known)
        if isinstance(found, str):
            print(f"\n{stage.name}: {found}")
            continue
        print()
        _print_stage(found, card)
        hours += found.hours
        device_hours += found.hours * found.devices
    if device_hours:
        print(f"\ntraining in all: {duration(3600 * hours)}, {device_hours:.3g} card hours")
    said = experiment.meta.get("estimate") or {}
    if "minutes" in said:
        print(f"the experiment's own estimate, everything included: {duration(60 * said['minutes'])}")


def _print_stage(plan: StagePlan, card: Card) -> None:
    planned, counted = plan.planned, plan.counted
    where = (
        f"{plan.devices} devices, weights divided by {plan.sharded}" if plan.sharded > 1 else f"{plan.devices} x all"
    )
    print(f"{plan.name}: {where if plan.devices > 1 else '1 device'}, {plan.precision}")
    units = planned.samples * planned.units_per_sample * planned.steps * plan.devices
    rows = [
        ("parameters", f"{_count(counted.trained).strip()} trained, {_count(counted.frozen).strip()} frozen"),
        ("micro-batch", f"{planned.samples} samples of {_count(planned.units_per_sample).strip()} {planned.units}"),
        ("a step", f"{_count(counted.step_flops)}FLOP, {plan.step_seconds:.3g} s"),
        ("all steps", f"{planned.steps} a device, {_count(units).strip()} {planned.units}"),
        ("work", f"{_count(plan.flops * plan.devices)}FLOP"),
        ("hours", duration(3600 * plan.hours)),
    ]  # fmt: skip
    rows += [(f"memory: {name}", f"{size / 1e9:.3g} GB") for name, size in plan.memory.items()]
    fits = "fits" if plan.peak_bytes < card.memory_gb * 1e9 else "DOES NOT FIT"
    rows.append(("peak of a device", f"{plan.peak_bytes / 1e9:.3g} of {card.memory_gb:g} GB: {fits}"))
    print_table(rows, indent=2)
    for text in planned.assumptions:
        print(f"  assumed: {text}")


def _count(number: float) -> str:
    for unit, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g} "
