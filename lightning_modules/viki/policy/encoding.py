"""Prompts and answers into tensors: what needs no weights, so that the processes that load data can do it.

Axis legend: P prompt, N place in a prompt, G completion (P x group, groups adjacent), L place in a completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from .batch import PolicyBatch, Prompt
from .pictures import PictureSettings
from .positions import prompt_positions
from .text import Texts


@dataclass
class Encoder:
    """Encodes prompts, padded on the left, and completions, padded on the right.

    Attributes:
        texts: the tokenizer.
        pictures: how pictures are cut.
    """

    texts: Texts
    pictures: PictureSettings

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str] | None = None) -> PolicyBatch:
        """Texts and pictures as tensors on the CPU.

        Args:
            prompts: P of them.
            completions: P, or a multiple of it, groups adjacent.
        """
        pieces, counts = [], []
        side = self.pictures.merge_size
        for prompt in prompts:
            cut = [self.pictures.patches(numpy.asarray(image)) for image in prompt.images]
            pieces += cut
            counts.append([rows * columns // side**2 for _, (rows, columns) in cut])
        rows = self.texts.prompts((p.system, p.instruction, n) for p, n in zip(prompts, counts, strict=True))
        merged = iter([(grid[0] // side, grid[1] // side) for _, grid in pieces])
        placed = [prompt_positions(row, self.texts.image, merged) for row in rows]
        longest = max(map(len, rows))
        tokens_PN = torch.full((len(rows), longest), self.texts.pad)
        mask_PN = torch.zeros(len(rows), longest, dtype=torch.bool)
        positions_APN = torch.zeros(3, len(rows), longest, dtype=torch.int64)
        for k, (row, where) in enumerate(zip(rows, placed, strict=True)):
            tokens_PN[k, longest - len(row) :] = torch.tensor(row)
            mask_PN[k, longest - len(row) :] = True
            positions_APN[:, k, longest - len(row) :] = torch.from_numpy(where)
        patches = torch.cat([piece for piece, _ in pieces]) if pieces else torch.zeros(0, 0, dtype=torch.uint8)
        return PolicyBatch(
            tokens_PN, mask_PN, positions_APN, torch.tensor([int(where.max()) + 1 for where in placed]),
            patches, torch.tensor([grid for _, grid in pieces], dtype=torch.int64).reshape(-1, 2),
            *self._completions(completions),
        )  # fmt: skip

    def _completions(self, completions: Sequence[str] | None) -> tuple[Tensor | None, Tensor | None]:
        if completions is None:
            return None, None
        rows = self.texts.answers(completions)
        longest = max(map(len, rows))
        tokens_GL = torch.full((len(rows), longest), self.texts.pad)
        mask_GL = torch.zeros(len(rows), longest, dtype=torch.bool)
        for k, row in enumerate(rows):
            tokens_GL[k, : len(row)] = torch.tensor(row)
            mask_GL[k, : len(row)] = True
        return tokens_GL, mask_GL
