"""What the makers share that ask about the rows of a fetched table: reading it, an `Item`, wrong answers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ....registry import UserError
from ..examples import Item


@contextlib.contextmanager
def reading(file: Path, source: str) -> Iterator[None]:
    """While entered, whatever a damaged table makes its reader raise becomes one sentence.

    Args:
        file: the table.
        source: name of the source that it belongs to.

    Raises:
        UserError: if the file is missing, cut off, or not what its maker expects.
    """
    try:
        yield
    except (OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read: {error}\nfulgurite cache clean {source}   then fetch it again"
        ) from None


def asked(key: str, templates: Sequence[str], word: str, answer: str, wrong: Iterable[str]) -> Item:
    """The item of one row.

    Args:
        key: as `Item.key`.
        templates: ways of asking, with {word} in them.
        word: what is asked about.
        answer: the right answer.
        wrong: the other choices.
    """
    return Item(key, tuple(t.format(word=word) for t in templates), answer, (answer, *wrong))


def wrong_answers(answer: str, near: Iterable[str], far: Iterable[str], key: str) -> list[str]:
    """Three wrong answers, drawn from those `near` the right one, and from the others where too few are near.

    Args:
        answer: the right answer.
        near: answers that are easily taken for it.
        far: all answers.
        key: seed of the draw.
    """
    chance = random.Random(key)
    close = sorted({*near} - {answer, ""})
    rest = sorted({*far} - {answer, "", *close})
    found = chance.sample(close, min(3, len(close)))
    return found + chance.sample(rest, 3 - len(found))
