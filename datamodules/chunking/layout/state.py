"""The carried context as tokens that stand before a batch's first item. Axis legend: S state token, F number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..context import ChunkContext
from ..lines import KINDS, kind_of
from .blocks import TERMINAL
from .features import last_text

NUM_STATE = 6  # three headings, the last chunk, the open table, the open procedure
NUM_STATE_FEATURES = NUM_STATE + 1 + len(KINDS) + 4
TAIL_CHARS = 160


def state_texts(context: ChunkContext) -> list[str]:
    """What the text encoder is given for each of the `NUM_STATE` tokens; empty where a token has nothing to say."""
    headings = [*context.headings, "", "", ""][:3]
    return [*headings, last_text(context)[-TAIL_CHARS:], " ".join(context.open_table), ""]


def state_features(context: ChunkContext) -> np.ndarray:
    """Numbers of the tokens: which it is, whether it holds anything, kind and end of the last chunk, open counts.

    Returns:
        [NUM_STATE, NUM_STATE_FEATURES] float32.
    """
    texts = state_texts(context)
    last = last_text(context)
    rows = np.zeros((NUM_STATE, NUM_STATE_FEATURES), np.float32)
    rows[:, :NUM_STATE] = np.eye(NUM_STATE)
    rows[:, NUM_STATE] = [bool(t) for t in texts]
    procedure = context.open_procedure
    rows[5, NUM_STATE] = procedure is not None
    if last:
        rows[3, NUM_STATE + 1 + KINDS.index(kind_of(last))] = 1.0
    rows[3, -4] = last.endswith(TERMINAL)
    rows[3, -3] = math.log1p(len(last)) / 6
    rows[4, -2] = len(context.open_table) / 6
    rows[5, -1] = math.log1p(procedure.last_step) / 3 if procedure else 0.0
    return rows


def corrupted(context: ChunkContext, other: ChunkContext, kept: Sequence[bool]) -> ChunkContext:
    """A context of which parts are another's.

    Args:
        context: the right one.
        other: where the wrong parts come from.
        kept: whether headings, last chunks, table and procedure stay.
    """
    return ChunkContext(
        context.headings if kept[0] else other.headings,
        context.last_chunks if kept[1] else other.last_chunks,
        context.open_table if kept[2] else other.open_table,
        context.open_procedure if kept[3] else other.open_procedure,
    )
