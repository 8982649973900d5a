"""Which keys a query may see: a dense boolean mask, or one boolean per block of 64 queries by 64 keys.

Axis legend: B batch, H head, N query, M key.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockMask:
    """A mask that keeps or drops whole blocks of the attention map.

    Attributes:
        keep: bool [B or 1, H or 1, ceil(N / block), ceil(M / block)], True = the block is computed.
        block: side of a block in tokens; the last block of a row or column may be shorter.
    """

    keep: Tensor
    block: int = 64

    def dense(self, num_queries: int, num_keys: int) -> Tensor:
        """The same mask as bool [B or 1, H or 1, N, M]."""
        rows = self.keep.repeat_interleave(self.block, dim=-2)[..., :num_queries, :]
        return rows.repeat_interleave(self.block, dim=-1)[..., :num_keys]


Mask = Tensor | BlockMask | None


def dense_mask(mask: Mask, num_queries: int, num_keys: int) -> Tensor | None:
    """Any mask as a bool tensor that broadcasts over [B, H, N, M]; None stays None (all keys are seen)."""
    return mask.dense(num_queries, num_keys) if isinstance(mask, BlockMask) else mask


def check_mask(mask: Mask, q_BHND: Tensor, k_BHMD: Tensor) -> None:
    """Refuse a mask that does not belong to these queries and keys.

    Raises:
        TypeError: for a dense mask that is not boolean.
        ValueError: for a shape that does not broadcast, or blocks that do not cover the map exactly.
    """
    if mask is None:
        return
    batch, heads, num_queries, _ = q_BHND.shape
    num_keys = k_BHMD.shape[2]
    shape: tuple[int, ...]
    if isinstance(mask, BlockMask):
        given, shape = mask.keep, (batch, heads, -(-num_queries // mask.block), -(-num_keys // mask.block))
        loose = (True, True, False, False)
    else:
        given, shape, loose = mask, (batch, heads, num_queries, num_keys), (True, True, True, False)
    if given.dtype != torch.bool:
        raise TypeError(f"an attention mask is boolean, True = keep; this one is {given.dtype}")
    fits = given.ndim == 4 and all(
        have == want or (one and have == 1) for have, want, one in zip(given.shape, shape, loose, strict=True)
    )
    if not fits:
        raise ValueError(f"attention mask of shape {tuple(given.shape)} does not fit {shape} (B, H and N may be 1)")
