"""What goes into a policy and what comes out of it.

Axis legend: P prompt, N place in a prompt, G completion (P x group, groups adjacent), L place in a completion, M patch,
C patch value, I picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """What a policy is asked.

    Attributes:
        system: system prompt.
        instruction: what the user asks.
        images: pictures, uint8 [H, W, 3], before the instruction; none for a blind policy.
    """

    system: str
    instruction: str
    images: Sequence[numpy.ndarray] = ()


def prompts_of(batch: Mapping[str, list[Any]]) -> list[Prompt]:
    """The prompts of a batch of `VikiTrajectoryDataModule`."""
    return [Prompt(*item) for item in zip(batch["system"], batch["instruction"], batch["images"], strict=True)]


@dataclass(frozen=True)
class PolicyBatch:
    """Encoded prompts, and completions to learn where some were given.

    Attributes:
        tokens_PN: int64 [P, N], padded on the left.
        mask_PN: bool [P, N], False on padding.
        positions_APN: int64 [3, P, N], time, row and column of each token (multimodal rotary positions).
        next_position_P: int64 [P], position of the first token of a completion.
        patches_MC: uint8 [M, 3 * patch * patch], the patches of all pictures one after the other.
        grids_I2: int64 [I, 2] on the CPU, rows and columns of patches of each picture.
        completion_tokens_GL: int64 [G, L], padded on the right, each with its end token; None if none were given.
        completion_mask_GL: bool [G, L], True up to and with the end token.
    """

    tokens_PN: Tensor
    mask_PN: Tensor
    positions_APN: Tensor
    next_position_P: Tensor
    patches_MC: Tensor
    grids_I2: Tensor
    completion_tokens_GL: Tensor | None = None
    completion_mask_GL: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens_PN)

    def pin_memory(self) -> PolicyBatch:
        """The same in page-locked memory, from which copies to a GPU do not wait."""
        kept = {n: x for n, x in vars(self).items() if isinstance(x, Tensor) and n != "grids_I2"}
        return replace(self, **{name: value.pin_memory() for name, value in kept.items()})

    def to(self, device: torch.device | str) -> PolicyBatch:
        """The same on a device; the grids stay on the CPU."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "grids_I2"
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Completions:
    """What a policy wrote.

    Attributes:
        tokens_GL: int64 [G, L].
        mask_GL: bool [G, L], True up to and with the end token.
        log_probs_GL: float32 [G, L], log-probability of each token when it was drawn; 0 outside the mask.
        texts: the G answers, without special tokens.
    """

    tokens_GL: Tensor
    mask_GL: Tensor
    log_probs_GL: Tensor
    texts: list[str]
