"""Attention written out, in float64 if the inputs are: what every other backend is tested against.

Axis legend: B batch, H head, N query, M key, D head channel, E value channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import ATTENTION
from .backend import AttentionBackend
from .masks import Mask, dense_mask


@ATTENTION.register("reference")
class ReferenceAttention(AttentionBackend):
    """Softmax attention written out, any device, dtype and mask; slow, and holds the whole map.

    Half-precision inputs are computed in float32. The softmax runs over kept keys only; a row with none gives zeros,
    and zero gradients.
    """

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype."""
        dtype = q_BHND.dtype if q_BHND.dtype == torch.float64 else torch.float32
        scores_BHNM = (q_BHND.to(dtype) * scale) @ k_BHMD.to(dtype).transpose(-2, -1)
        keep = dense_mask(mask, q_BHND.shape[2], k_BHMD.shape[2])
        if keep is not None:
            scores_BHNM = scores_BHNM.masked_fill(~keep, float("-inf"))
        top_BHN1 = scores_BHNM.detach().amax(-1, keepdim=True)
        top_BHN1 = top_BHN1.masked_fill(top_BHN1 == float("-inf"), 0.0)  # a row without keys: exp(-inf - 0) = 0
        weights_BHNM = torch.exp(scores_BHNM - top_BHN1)
        total_BHN1 = weights_BHNM.sum(-1, keepdim=True)
        total_BHN1 = total_BHN1.masked_fill(total_BHN1 == 0, 1.0)
        return ((weights_BHNM / total_BHN1) @ v_BHME.to(dtype)).to(q_BHND.dtype)
