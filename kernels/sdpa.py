"""PyTorch's own attention, which picks flash, cuDNN, memory-efficient or plain kernels by itself.

Axis legend: B batch, H head, N query, M key, D head channel, E value channel.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..registry import ATTENTION
from .backend import AttentionBackend
from .masks import Mask, dense_mask


@ATTENTION.register("sdpa")
class SdpaAttention(AttentionBackend):
    """PyTorch's scaled_dot_product_attention: any device and dtype, kernels picked by PyTorch; the default.

    A block mask is widened to a dense one: right, but no faster than no mask. Without a mask the flash kernels apply.
    """

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype."""
        keep = dense_mask(mask, q_BHND.shape[2], k_BHMD.shape[2])
        if keep is None:
            return F.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHME, scale=scale)
        # PyTorch's kernels disagree on a row without keys (zeros or NaN): such rows see all keys, and are zeroed after
        empty = ~keep.any(-1, keepdim=True)
        out_BHNE = F.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHME, attn_mask=keep | empty, scale=scale)
        return out_BHNE.masked_fill(empty, 0.0)
