"""What an attention backend is: a callable that says what it can do, and why not.

Axis legend: B batch, H head, N query, M key, D head channel, E value channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .masks import BlockMask, Mask


@dataclass(frozen=True)
class Capability:
    """What a backend can compute.

    Attributes:
        devices: device types, such as `cpu`, `cuda`; empty = any.
        dtypes: dtypes of q, k and v; empty = any floating one.
        head_dims: head widths D; empty = any.
        masks: kinds among `dense`, `keys` (dense and the same for every head and query: [B or 1, 1, 1, M]; what takes
            `dense` takes it) and `block`; no mask at all always works.
        gradients: whether a backward pass exists.
    """

    devices: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    head_dims: tuple[int, ...] = ()
    masks: tuple[str, ...] = ("dense", "block")
    gradients: bool = True


class AttentionBackend(ABC):
    """One way to compute softmax(q k^T * scale) v; its options are the arguments of its constructor.

    Attributes:
        capability: what it can compute.
        fallback: name of the backend that takes the calls it can't compute; one that can compute all.
        name: the registered name that it was made by.
    """

    capability: ClassVar[Capability] = Capability()
    fallback: ClassVar[str] = "reference"
    name: str = ""

    def why_not(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, mask: Mask = None) -> str:
        """Why this backend cannot compute that, as words that follow its name; empty if it can."""
        can = self.capability
        kind = "block" if isinstance(mask, BlockMask) else "dense"
        if isinstance(mask, Tensor) and "dense" not in can.masks and mask.shape[1] == mask.shape[2] == 1:
            kind = "keys"
        if can.devices and q_BHND.device.type not in can.devices:
            return f"runs on {', '.join(can.devices)}, not on {q_BHND.device.type}"
        if can.dtypes and q_BHND.dtype not in can.dtypes:
            return f"computes in {', '.join(str(d) for d in can.dtypes)}, not in {q_BHND.dtype}"
        if can.head_dims and q_BHND.shape[-1] not in can.head_dims:
            return f"takes heads of width {', '.join(str(d) for d in can.head_dims)}, not {q_BHND.shape[-1]}"
        if mask is not None and kind not in can.masks:
            return f"takes no {kind} mask"
        wanted = q_BHND.requires_grad or k_BHMD.requires_grad or v_BHME.requires_grad
        if not can.gradients and wanted and torch.is_grad_enabled():
            return "has no backward pass"
        return ""

    @abstractmethod
    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype; rows that see no key are zero."""
