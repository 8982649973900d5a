"""Generated puzzles of the package reasoning-gym (Apache-2.0), by its generators' names."""

from __future__ import annotations

from ....registry import UserError, did_you_mean, install_line
from ..examples import Item

DEFAULT_SIZE = 2000
_PER_LIMIT = 14  # so that a tenth of what is generated, less repeats, still fills a split


def make_items(name: str, *, limit: int | None, seed: int) -> list[Item]:
    """Items of one generator; key = question.

    Args:
        name: such as `spell_backward`.
        limit: most examples a split; sets how many are generated (2,000 if None).
        seed: of the generator.

    Raises:
        UserError: if the package is missing, has no such generator, or the generator fails.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UserError(f"'reasoning_gym:{name}' needs the package {error.name}\n{install_line('dnd')}") from None
    if name not in DATASETS:
        hint = did_you_mean(name, sorted(DATASETS), f"It has {len(DATASETS)} of them.")
        raise UserError(f"reasoning_gym has no generator '{name}'\n{hint}")
    size = DEFAULT_SIZE if limit is None else min(DEFAULT_SIZE, max(60, limit * _PER_LIMIT))
    try:
        rows = list(reasoning_gym.create_dataset(name, size=size, seed=seed))
    except Exception as error:  # a generator of another package may fail in any way, such as for a missing package
        raise UserError(f"reasoning_gym's generator '{name}' failed: {type(error).__name__}: {error}"[:400]) from None
    found = []
    for row in rows:
        question, answer = str(row["question"]).strip(), row["answer"]
        if question and answer is not None and str(answer).strip():
            found.append(Item(question, (question,), str(answer).strip()))
    return found
