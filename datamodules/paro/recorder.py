"""An attention backend that hands on what it computes: how queries and keys get out of a model."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...kernels.api import make_backend
from ...kernels.backend import AttentionBackend
from ...kernels.masks import Mask
from ...kernels.place import NO_LAYER, Place

# place, q [H, N, D], k [H, N, D], seen keys bool [N] or None
Sink = Callable[[Place, Tensor, Tensor, Tensor | None], None]


class RecordingAttention(AttentionBackend):
    """Dense attention by `sdpa` that shows the last of the batch to a sink, in the layers that a plan counts.

    With classifier-free guidance in one batch the last is the conditional one. It runs eagerly: not for torch.compile.

    Args:
        sink: gets place, q, k and which keys are seen.
    """

    name = "recording"

    def __init__(self, sink: Sink) -> None:
        self.place = Place()
        self._sink = sink
        self._dense = make_backend("sdpa")

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E]."""
        if self.place.layer != NO_LAYER and q_BHND.shape[2] == k_BHMD.shape[2]:
            seen = None
            if isinstance(mask, Tensor):
                seen = mask.expand(len(q_BHND), -1, -1, -1)[-1, 0, 0]
            self._sink(self.place, q_BHND[-1], k_BHMD[-1], seen)
        return self._dense(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)
