"""What the generator is measured against: every way to answer a new task without its labels that anyone could have,
and the task's own LoRA as the ceiling.

Axis legend: N prompts, L text token, C channel, K training task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...datamodules.dnd.conditions import PromptEncoder
from ...datamodules.dnd.examples import Task
from ...datamodules.dnd.snapshots import SnapshotStore
from .generator import TrainedGenerator

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Condition:
    """One row of the comparison.

    Attributes:
        group: the control's name; rows of one group are draws of the same thing and are averaged.
        name: the row's own name, also a file name.
        adapter: makes the adapter, or None for the base model.
        prefix: solved examples before the prompt.
        hint: a sentence on the format after it.
    """

    group: str
    name: str
    adapter: Callable[[], State] | None = None
    prefix: str = ""
    hint: str = ""


def conditions(
    generator: TrainedGenerator, store: SnapshotStore, encoder: PromptEncoder, held_out: Task,
    training: Mapping[str, Task], *, own: str, draws: int, shots: int, hint: str, seed: int,
) -> Iterator[Condition]:  # fmt: skip
    """All rows, in the order of the report.

    Args:
        generator: trained on `training`.
        store: their snapshots, and the held-out task's own.
        encoder: of the conditions.
        held_out: the task that the generator has not seen; only prompts of its train split are used, without labels.
        training: task name -> task.
        own: name of the held-out task in the store.
        draws: prompt draws for the generator; each training task's prompts make one mismatched row.
        shots: solved examples for in-context learning (labels that the generator does not get).
        hint: sentence on the answer's format for the base model.
        seed: seed of the draws.
    """
    unlabelled = [e.prompt for e in held_out.train]
    yield Condition("base", "base")
    yield Condition("base, format hint", "base_hint", hint=f" {hint}")
    solved = "".join(f"{e.prompt}\n{e.response}\n\n" for e in held_out.train[:shots])
    yield Condition(f"base, {shots} solved examples", "in_context", prefix=solved)
    for name in training:
        yield Condition("LoRA of another task", f"lora_{name}", partial(store.load, name))
    yield Condition("soup of all LoRAs", "soup", partial(store.soup, list(training)))
    near = nearest_task(generator, encoder, unlabelled)
    yield Condition("LoRA of the nearest prompts", f"lora_{near}", partial(store.load, near))  # scored once, above
    for name, task in training.items():
        foreign = partial(generated, generator, encoder, [e.prompt for e in task.train], seed)
        yield Condition("generator, mismatched prompts", f"mismatched_{name}", foreign)
    for draw in range(draws):
        matched = partial(generated, generator, encoder, unlabelled, seed + draw)
        yield Condition("generator", f"generator_{draw}", matched)
    yield Condition("own LoRA (trained on its labels)", "own", partial(store.load, own))


def generated(generator: TrainedGenerator, encoder: PromptEncoder, prompts: list[str], seed: int) -> State:
    """An adapter from N of the prompts."""
    condition_NLC = encoder.encode(generator.choose(prompts, seed))[0]
    return generator.adapter(generator.generate(condition_NLC))


def nearest_task(generator: TrainedGenerator, encoder: PromptEncoder, prompts: list[str]) -> str:
    """The training task whose prompts' centroid is nearest (cosine)."""
    centroid_C = nn.functional.normalize(encoder.embed(prompts[:256]).mean(0), dim=0)
    return generator.tasks[int(torch.argmax(generator.centroids_KC @ centroid_C))]
