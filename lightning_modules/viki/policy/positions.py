"""Where each token of a prompt stands: Qwen2.5-VL's rotary positions, one number for text, row and column for pictures.

Axis legend: A axis (time, row, column), P prompt, N place in a prompt, G completion, L place in a completion.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import torch
from torch import Tensor


def prompt_positions(tokens: list[int], image_token: int, grids: Iterator[tuple[int, int]]) -> numpy.ndarray:
    """Positions of a prompt's tokens, int64 [3, N]; the next free one is the largest plus 1.

    Text goes on by one. A picture's tokens share their time and count rows and columns from there; text after it
    goes on after its longer side.

    Args:
        tokens: of the prompt.
        image_token: stands once for each merged block of a picture.
        grids: rows and columns of merged blocks of the pictures, in order.
    """
    found: list[numpy.ndarray] = []
    at = start = 0
    while at < len(tokens):
        if tokens[at] == image_token:
            rows, columns = next(grids)
            row, column = numpy.indices((rows, columns)).reshape(2, -1)
            found.append(numpy.stack([numpy.zeros_like(row), row, column]) + start)
            at, start = at + rows * columns, start + max(rows, columns)
            continue
        words = tokens.index(image_token, at) - at if image_token in tokens[at:] else len(tokens) - at
        found.append(numpy.broadcast_to(numpy.arange(start, start + words), (3, words)))
        at, start = at + words, start + words
    return numpy.concatenate(found, 1)


def completion_positions(next_position_G: Tensor, length: int, first: int = 0) -> Tensor:
    """Positions of completion tokens, int64 [3, G, length].

    Args:
        next_position_G: position of each completion's first token.
        length: how many tokens.
        first: number of the first of them in its completion.
    """
    steps_L = torch.arange(first, first + length, device=next_position_G.device)
    return (next_position_G[:, None] + steps_L).expand(3, -1, -1)
