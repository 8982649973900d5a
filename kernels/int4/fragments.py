"""How the 4-bit kernel's operands lie in memory, in PyTorch: register by register, as a warp's 32 lanes hold them.

Each lane's registers for `mma.m16n8k64` (PTX ISA 9.0, "Matrix Fragments for mma.m16n8k64") are one int32 of eight 4-bit
numbers, the first in the lowest bits, and the 32 lanes' stand side by side. Lane l has group g = l / 4 and place
t = l % 4:

    A (16 rows x 64)   register 2 a + b: row g + 8 b, columns 32 a + 8 t + 0..7
    B (64 x 8 columns) register a: column g, rows 32 a + 8 t + 0..7
    C (16 rows x 8)    number 2 b + e: row g + 8 b, column 2 t + e

So that P's registers need not change lanes between the two products, the second one counts its keys in another order:
the eight that a lane's registers hold already, in `KEY_OF`.

Axis legend: T tile of 64 tokens, N token, D channel, L lane.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
# The key at each of the second product's 64 rows: half, t, eight, e, where C's registers have half, eight, t, e.
KEY_OF = torch.arange(BLOCK).view(2, 4, 4, 2).transpose(1, 2).flatten().tolist()


def to_query_fragments(q_TND: Tensor) -> Tensor:
    """Operand A of the scores: int8 [..., 64, D] to int32 [..., 4 warps, D / 64, 4, 32]; a warp has 16 rows."""
    lead, steps = q_TND.shape[:-2], q_TND.shape[-1] // BLOCK
    parts = q_TND.reshape(-1, 4, 2, 8, steps, 2, 4, 8)  # tile, warp, b, g, step, a, t, number
    return _packed(parts.permute(0, 1, 4, 5, 2, 3, 6, 7)).view(*lead, 4, steps, 4, 32)


def to_key_fragments(k_TND: Tensor) -> Tensor:
    """Operand B of the scores: int8 [..., 64, D] to int32 [..., 8, D / 64, 2, 32]; eight keys at a time."""
    lead, steps = k_TND.shape[:-2], k_TND.shape[-1] // BLOCK
    parts = k_TND.reshape(-1, 8, 8, steps, 2, 4, 8)  # tile, eight, g, step, a, t, number
    return _packed(parts.permute(0, 1, 3, 4, 2, 5, 6)).view(*lead, 8, steps, 2, 32)


def to_value_fragments(v_TND: Tensor) -> Tensor:
    """Operand B of the second product: int8 [..., 64, D] to int32 [..., D / 8, 2, 32]; eight channels at a time."""
    lead, eights = v_TND.shape[:-2], v_TND.shape[-1] // 8
    parts = v_TND[..., KEY_OF, :].reshape(-1, 2, 4, 8, eights, 8)  # tile, a, t, number, eight, g
    return _packed(parts.permute(0, 4, 1, 5, 2, 3)).view(*lead, eights, 2, 32)


def _packed(x: Tensor) -> Tensor:
    """Eight numbers along the last axis as one int32."""
    bits = (x.to(torch.int64) & 15) << (4 * torch.arange(8, device=x.device))
    whole = bits.sum(-1)
    return torch.where(whole >= 1 << 31, whole - (1 << 32), whole).to(torch.int32).contiguous()
