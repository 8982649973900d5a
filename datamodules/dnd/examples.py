"""What a task consists of, and how items become its three splits without leaking from one into another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...registry import UserError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Attributes:
        prompt: what the model reads, without any chat format.
        response: what it should say.
        choices: the answers to choose from, the right one among them; empty for free answers.
    """

    prompt: str
    response: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A named set of examples.

    Attributes:
        name: as the user wrote it, such as `plural` or `bigbench:hyperbaton`.
        kind: `choice` if every example has choices, else `free`.
        train: examples to learn from.
        val: examples to choose by.
        test: examples to report on; they share no word, place or prompt with `train`.
        source: where they come from, in a few words.
        licence: of that source.
    """

    name: str
    kind: str
    train: tuple[Example, ...]
    val: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str
    licence: str


@dataclass(frozen=True)
class Item:
    """What a maker hands over: an answer with one or more ways of asking.

    Attributes:
        key: what must not lie in two splits: the lemma, the country, the prompt. The same key is in the same split of
            every task.
        prompts: paraphrases of the question.
        response: the answer.
        choices: the right answer and wrong ones in any order, or empty.
    """

    key: str
    prompts: tuple[str, ...]
    response: str
    choices: tuple[str, ...] = ()


def split_of(key: str) -> Split:
    """The split of a key by its sha1: 80 % train, 10 % val, 10 % test, whatever the seed and the task."""
    bucket = int(_digest(key)[:8], 16) % 10
    return "train" if bucket < 8 else "val" if bucket == 8 else "test"


def build_task(
    name: str,
    items: Iterable[Item],
    *,
    source: str,
    licence: str,
    limit: int | None,
    seed: int,
    every_paraphrase: bool = False,
    shuffle_choices: bool = True,
) -> Task:
    """Split by key, drop repeats, choose a paraphrase, shuffle, and cut to `limit`.

    Val and test do not depend on the seed: their order is that of the keys' sha1, so a smaller `limit` gives the head
    of a larger one. A set of three or more keys that leaves a split empty lends it one key of the training split.

    Args:
        name: the task's name.
        items: what to build from.
        source: where they come from.
        licence: of the source.
        limit: most examples in each split; None for all.
        seed: of the training split's order, paraphrases and order of choices.
        every_paraphrase: train on every paraphrase of an item; otherwise, and always in val and test, one.
        shuffle_choices: put the right answer at a uniform position; False keeps the given order.

    Raises:
        UserError: if nothing is left to train or test on.
    """
    by_split: dict[str, dict[str, list[Item]]] = {"train": {}, "val": {}, "test": {}}
    for item in items:
        by_split[split_of(item.key)].setdefault(_normal(item.key), []).append(item)
    train = by_split["train"]
    for other in ("val", "test"):
        if not by_split[other] and len(train) >= 2:
            lent = max(train, key=_digest)
            by_split[other][lent] = train.pop(lent)
    splits: dict[str, tuple[Example, ...]] = {}
    for split, keys in by_split.items():
        grouped = [item for key in sorted(keys, key=_digest) for item in keys[key]]
        training = split == "train"
        found: dict[Example, None] = {}
        for item in grouped:
            chance = random.Random(f"{seed if training else 0}/{name}/{item.key}/{item.response}")
            prompts = item.prompts if training and every_paraphrase else (chance.choice(item.prompts),)
            choices = list(item.choices)
            if shuffle_choices:
                chance.shuffle(choices)
            found |= {Example(prompt, item.response, tuple(choices)): None for prompt in prompts}
        splits[split] = _distinct(found)
        if training:
            splits[split] = tuple(random.Random(f"{seed}/{name}").sample(splits[split], len(splits[split])))
    return finish_task(
        name, splits["train"], splits["val"], splits["test"], source=source, licence=licence, limit=limit
    )


def finish_task(
    name: str,
    train: tuple[Example, ...],
    val: tuple[Example, ...],
    test: tuple[Example, ...],
    *,
    source: str,
    licence: str,
    limit: int | None,
) -> Task:
    """The task of splits that are made already.

    Raises:
        UserError: if there is nothing to train or to test on, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"task '{name}': limit must be 1 or more, not {limit}")
    if not train or not test:
        raise UserError(
            f"task '{name}' has {len(train)} examples to train on and {len(test)} to test on: too few to split\n"
            "Give at least three different prompts."
        )
    kind = "choice" if all(example.choices for example in (*train, *val, *test)) else "free"
    return Task(name, kind, train[:limit], val[:limit], test[:limit], source, licence)


def _distinct(examples: Iterable[Example]) -> tuple[Example, ...]:
    """Without those whose prompt and response came before."""
    first: dict[tuple[str, str], Example] = {}
    for example in examples:
        first.setdefault((example.prompt, example.response), example)
    return tuple(first.values())


def _normal(key: str) -> str:
    return " ".join(key.lower().split())


def _digest(key: str) -> str:
    return hashlib.sha1(_normal(key).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
