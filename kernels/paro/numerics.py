"""The function that PARO's kernels compute, written out: block-sparse softmax attention in integers of 8 or 4 bits.

Tokens are already in the plan's order (`orders.reorder`). The softmax runs over kept blocks alone and is renormalised
(the authors' kernel does so, their simulator does not); a row without a kept block gives zeros.

    S = (Q_int K_int^T) s_q s_k scale            Q, K: a scale for every 64 rows of a head, symmetric, amax / 127
    p = exp(S - max of the row)                  K: its mean over the tokens is taken off first, which S does not feel
    O = (P_int V_int) s_p s_v / sum(p)           P: unsigned, round(255 p), s_p = 1 / 255; V: a scale for every channel

At 4 bits Q and K have amax / 7, P a scale for every 64x64 block (its maximum / 15) and V one for every 64 keys by 64
channels (amax / 7): the groups of arXiv 2506.16054, section 4.3. The integers lie in floating-point numbers here,
which hold products and sums of Q and K exactly.

Axis legend: B batch, H head, N query, M key, D head channel, E value channel, R query block, C key block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

BLOCK = 64
MAP_ELEMENTS = 1 << 24  # of the map that are held at a time

Bits = Literal["float", "int8", "int4"]


@dataclass(frozen=True)
class Precision:
    """In which numbers the two products are computed.

    Attributes:
        qk: Q and K.
        pv: P (unsigned) and V.
        smooth: take K's mean off before it is rounded.
        p_scale: `row`: P is at most 1 in every row and has a constant scale; `block`: its maximum in each 64x64 block;
            None: by row at 8 bits, by block at 4.
    """

    qk: Bits = "float"
    pv: Bits = "float"
    smooth: bool = True
    p_scale: Literal["row", "block"] | None = None


PRECISIONS = {
    "float": Precision(),
    "bf16": Precision(),  # as the inputs are: by a kernel for bfloat16 where there is one
    "int8_qk": Precision("int8"),
    "int8": Precision("int8", "int8"),
    "int4_qk": Precision("int4"),
    "int4": Precision("int4", "int4"),
}


def paro_attention(
    q_BHND: Tensor,
    k_BHMD: Tensor,
    v_BHME: Tensor,
    keep_BHRC: Tensor | None = None,
    *,
    key_mask_B11M: Tensor | None = None,
    scale: float | None = None,
    precision: Precision = PRECISIONS["int8"],
) -> Tensor:
    """Attention over kept blocks, in these numbers. Gradients are those of the same attention without rounding.

    Never holds the whole map where no gradient is wanted: a few blocks of queries at a time.

    Args:
        q_BHND, k_BHMD, v_BHME: in the plan's order, any floating dtype and strides; computed in float32, float64 where
            they are.
        keep_BHRC: bool [B or 1, H or 1, ceil(N / 64), ceil(M / 64)]; None keeps all.
        key_mask_B11M: bool [B or 1, 1, 1, M], False = a key that nobody sees, such as padding of a text.
        scale: of the scores; None is D ** -0.5.
        precision: see `Precision`.

    Returns:
        [B, H, N, E] in q's dtype.
    """
    scale = q_BHND.shape[-1] ** -0.5 if scale is None else scale
    exact = precision.qk == "float" and precision.pv == "float"
    wanted = torch.is_grad_enabled() and (q_BHND.requires_grad or k_BHMD.requires_grad or v_BHME.requires_grad)
    if exact or not wanted:
        return _forward(q_BHND, k_BHMD, v_BHME, keep_BHRC, key_mask_B11M, scale, precision)
    smooth = _forward(q_BHND, k_BHMD, v_BHME, keep_BHRC, key_mask_B11M, scale, PRECISIONS["float"])
    with torch.no_grad():
        rounded = _forward(q_BHND, k_BHMD, v_BHME, keep_BHRC, key_mask_B11M, scale, precision)
    return smooth + (rounded - smooth).detach()


def _forward(
    q_BHND: Tensor,
    k_BHMD: Tensor,
    v_BHME: Tensor,
    keep_BHRC: Tensor | None,
    key_mask_B11M: Tensor | None,
    scale: float,
    precision: Precision,
) -> Tensor:
    with torch.autocast(q_BHND.device.type, enabled=False):  # which would round both products to half precision
        return _computed(q_BHND, k_BHMD, v_BHME, keep_BHRC, key_mask_B11M, scale, precision)


def _computed(
    q_BHND: Tensor,
    k_BHMD: Tensor,
    v_BHME: Tensor,
    keep_BHRC: Tensor | None,
    key_mask_B11M: Tensor | None,
    scale: float,
    precision: Precision,
) -> Tensor:
    dtype = torch.float64 if q_BHND.dtype == torch.float64 else torch.float32
    q, k, v = (t.to(dtype) for t in (q_BHND, k_BHMD, v_BHME))
    if precision.qk != "float":
        top = 127 if precision.qk == "int8" else 7
        k = k - k.mean(2, keepdim=True) if precision.smooth else k
        q, k = _rounded_rows(q, top), _rounded_rows(k, top)
    if precision.pv == "int8":
        v = _rounded(v, v.abs().amax(2, keepdim=True), 127)
    elif precision.pv == "int4":
        v = _rounded_blocks(v, 7)
    q = q * scale
    rows = max(1, MAP_ELEMENTS // max(1, q.shape[0] * q.shape[1] * k.shape[2] * BLOCK)) * BLOCK
    parts = []
    for start in range(0, q.shape[2], rows):
        kept = None if keep_BHRC is None else keep_BHRC[:, :, start // BLOCK : (start + rows) // BLOCK]
        parts.append(_some_rows(q[:, :, start : start + rows], k, v, kept, key_mask_B11M, precision))
    return torch.cat(parts, 2).to(q_BHND.dtype)


def _some_rows(
    q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, keep_BHRC: Tensor | None, mask_B11M: Tensor | None, how: Precision
) -> Tensor:
    """Output of some whole query blocks, [B, H, N, E]; q, k and v hold the values that their integers stand for."""
    scores_BHNM = q_BHND @ k_BHMD.transpose(-2, -1)
    if keep_BHRC is not None:
        keep = keep_BHRC.repeat_interleave(BLOCK, 2)[:, :, : scores_BHNM.shape[2]]
        keep = keep.repeat_interleave(BLOCK, 3)[..., : scores_BHNM.shape[3]]
        scores_BHNM = scores_BHNM.masked_fill(~keep, float("-inf"))
    if mask_B11M is not None:
        scores_BHNM = scores_BHNM.masked_fill(~mask_B11M, float("-inf"))
    top_BHN1 = scores_BHNM.detach().amax(-1, keepdim=True)
    top_BHN1 = top_BHN1.masked_fill(top_BHN1 == float("-inf"), 0.0)  # a row without keys: exp(-inf - 0) = 0
    p_BHNM = torch.exp(scores_BHNM - top_BHN1)
    total_BHN1 = p_BHNM.sum(-1, keepdim=True)
    total_BHN1 = total_BHN1.masked_fill(total_BHN1 == 0, 1.0)
    if how.pv != "float":
        top = 255 if how.pv == "int8" else 15
        by_block = how.pv == "int4" if how.p_scale is None else how.p_scale == "block"
        p_BHNM = _rounded_blocks(p_BHNM, top) if by_block else (p_BHNM * top).round() / top
    return (p_BHNM @ v_BHME) / total_BHN1


def _rounded(x: Tensor, amax: Tensor, top: int) -> Tensor:
    """The nearest of the values -top … top times amax / top; zeros stay zeros."""
    step = torch.where(amax > 0, amax, torch.ones_like(amax)) / top
    return (x / step).round() * step


def _rounded_rows(x_BHND: Tensor, top: int) -> Tensor:
    """Rounded with a scale for every 64 rows."""
    blocks = _padded(x_BHND, 2).unflatten(2, (-1, BLOCK))
    return _rounded(blocks, blocks.abs().amax((3, 4), keepdim=True), top).flatten(2, 3)[:, :, : x_BHND.shape[2]]


def _rounded_blocks(x_BHNM: Tensor, top: int) -> Tensor:
    """Rounded with a scale for every 64x64 block of the last two axes."""
    blocks = _padded(_padded(x_BHNM, 2), 3).unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    made = _rounded(blocks, blocks.abs().amax((3, 5), keepdim=True), top).flatten(4, 5).flatten(2, 3)
    return made[:, :, : x_BHNM.shape[2], : x_BHNM.shape[3]]


def _padded(x: Tensor, axis: int) -> Tensor:
    """Zeros appended along an axis, to a multiple of 64."""
    short = -x.shape[axis] % BLOCK
    return torch.nn.functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (0, short)) if short else x
