"""What the generator is measured against: every way to answer a new task without its labels that anyone could have,
and the task's own LoRA as the ceiling.

Axis legend: N prompts, L text token, C channel, K training task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ...datamodules.dnd.conditions import PromptEncoder
from ...datamodules.dnd.examples import Example, Task
from ...datamodules.dnd.snapshots import SnapshotStore
from .generator import TrainedGenerator

State = Mapping[str, Tensor]
GENERATOR, MISMATCHED = "generator", "generator, mismatched prompts"
OTHER_TASKS, OWN = "LoRA of another task", "own LoRA (trained on its labels)"
COVERAGE_PROMPTS = 256


@dataclass(frozen=True)
class Condition:
    """One row of the comparison.

    Attributes:
        group: the control's name; rows of one group are draws of the same thing and are averaged.
        name: the row's own name, also a file name.
        adapter: makes the adapter, or None for the base model.
        shots: solved examples before the prompt.
        hint: a sentence on the format after it.
        uses_labels: whether it needs answers of the held-out task, which the generator does without.
    """

    group: str
    name: str
    adapter: Callable[[], State] | None = None
    shots: tuple[Example, ...] = ()
    hint: str = ""
    uses_labels: bool = False


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
    yield Condition(f"base, {shots} solved examples", "in_context", shots=held_out.train[:shots], uses_labels=True)
    for name in training:
        yield Condition(OTHER_TASKS, f"lora_{name}", partial(store.load, name))
    yield Condition("soup of all LoRAs", "soup", partial(store.soup, list(training)))
    near, _, _ = generator.coverage(encoder.embed(unlabelled[:COVERAGE_PROMPTS]))
    yield Condition("LoRA of the nearest prompts", f"lora_{near}", partial(store.load, near))  # scored once, above
    for name, task in training.items():
        foreign = partial(generated, generator, encoder, [e.prompt for e in task.train], seed)
        yield Condition(MISMATCHED, f"mismatched_{name}", foreign)
    for draw in range(draws):
        matched = partial(generated, generator, encoder, unlabelled, seed + draw)
        yield Condition(GENERATOR, f"generator_{draw}", matched)
    yield Condition(OWN, "own", partial(store.load, own), uses_labels=True)


def generated(generator: TrainedGenerator, encoder: PromptEncoder, prompts: list[str], seed: int) -> State:
    """An adapter from N of the prompts."""
    condition_NLC = encoder.encode(generator.choose(prompts, seed))[0]
    return generator.adapter(generator.generate(condition_NLC))


def recovery(
    generator: TrainedGenerator, store: SnapshotStore, encoder: PromptEncoder, name: str, task: Task, seed: int
) -> tuple[Condition, Condition, Condition]:
    """Base, own LoRA and generator, for a task that the generator was trained on: what it gives back of a LoRA that it
    knows, from prompts that it has not seen (the val split's).
    """
    unseen = list(dict.fromkeys(e.prompt for e in task.val))
    return (
        Condition("base", f"recovery_{name}_base"),
        Condition("own LoRA", f"recovery_{name}_own", partial(store.load, name)),
        Condition(GENERATOR, f"recovery_{name}_generator", partial(generated, generator, encoder, unseen, seed)),
    )
