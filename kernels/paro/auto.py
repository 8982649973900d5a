"""The backend `auto`: `paro` where it was measured to be faster, else PyTorch's own dense attention.

Axis legend: B batch, H head, N token, D channel.
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...registry import ATTENTION
from ..masks import Mask
from ..sdpa import SdpaAttention
from .backend import ParoAttention, tell
from .op import kernels_for
from .plan import Plan

TABLE = Path(__file__).with_name("measured.json")
# what PyTorch is to try for dense attention: the table's times are cuDNN's
DENSE = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Measured:
    """Times of one attention shape on one device, in ms.

    Attributes:
        heads: heads over the batch.
        tokens: length of the sequence.
        width: channels of a head.
        dense_ms: dense cuDNN.
        paro_ms: density -> `paro`, all-in.
    """

    heads: int
    tokens: int
    width: int
    dense_ms: float
    paro_ms: dict[float, float]

    def estimate(self, heads: int, tokens: int, density: float) -> tuple[float, float]:
        """Time of dense attention and of `paro` at another shape of this width, in ms.

        `paro`'s time is a line in the density: what grows with the kept part of the map is scaled by the map's size;
        the rest (order, rounding, lists) by the number of tokens, and never to less than what was measured, since a
        short call's is mostly launching.
        """
        low, high = min(self.paro_ms), max(self.paro_ms)
        slope = (self.paro_ms[high] - self.paro_ms[low]) / (high - low)
        rest = self.paro_ms[low] - slope * low
        longer = heads * tokens / (self.heads * self.tokens)
        larger = longer * tokens / self.tokens
        return self.dense_ms * larger, slope * density * larger + rest * max(1.0, longer)


@functools.cache
def measured_on(device: str) -> tuple[Measured, ...]:
    """What measured.json has of a device, by PyTorch's name of it; empty if nothing."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["devices"].get(device, [])
    return tuple(
        Measured(
            row["heads"], row["tokens"], row["width"], row["dense_ms"],
            {float(density): time for density, time in row["paro_ms"].items()},
        )
        for row in rows
    )  # fmt: skip


def faster(device: str, heads: int, tokens: int, width: int, density: float) -> tuple[str, str]:
    """Which of `paro` and `sdpa` is faster by the measured table, and why where it is a matter of not knowing.

    Args:
        device: PyTorch's name of the GPU, or `cpu`.
        heads: heads over the batch.
        tokens: length of the sequence.
        width: channels of a head.
        density: kept blocks / all blocks, mean over the heads.
    """
    rows = measured_on(device)
    if not rows:
        return "sdpa", f"'paro' was not measured on {device}"
    rows = tuple(row for row in rows if row.width == width)
    if not rows:
        return "sdpa", f"'paro' was not measured with heads of {width} channels on {device}"
    nearest = min(rows, key=lambda row: max(row.tokens / tokens, tokens / row.tokens))
    dense_ms, paro_ms = nearest.estimate(heads, tokens, density)
    return ("paro", "") if paro_ms < dense_ms else ("sdpa", "")


@ATTENTION.register("auto")
class AutoAttention(ParoAttention):
    """`paro` with a plan, where that was measured to be faster than dense attention; else PyTorch's own, cuDNN first.

    It goes by heads, tokens, head width, GPU and the layer's density (measured.json). Calls that want gradients are
    dense, since `paro` computes these by plain PyTorch; on GPUs that were not measured all are, with one warning.

    Args:
        plan: a plan, or its file.

    Raises:
        UserError: for a plan that can't be read.
    """

    def __init__(self, plan: Plan | str | Path | None = None) -> None:
        super().__init__(plan)
        self._density_L: list[float] = []
        if self.plan is not None:
            self._density_L = self.plan.density.float().mean((0, 2)).tolist()
        self._dense = SdpaAttention()

    def choose(self, q_BHND: Tensor) -> str:
        """`paro` or `sdpa` for a call of the layer where its place is."""
        batch, heads, tokens, width = q_BHND.shape
        chosen, reason = _choose(
            q_BHND.device, q_BHND.dtype, batch * heads, tokens, width, self._density_L[self.place.layer]
        )
        if reason:
            tell(f"attention 'auto' takes 'sdpa': {reason}")
        return chosen

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype and in the tokens' own order."""
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (q_BHND, k_BHMD, v_BHME))
        if not wanted and self.choose(q_BHND) == "paro":
            return super().__call__(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)
        on_gpu = q_BHND.device.type == "cuda"
        with sdpa_kernel(DENSE, set_priority=True) if on_gpu else contextlib.nullcontext():
            return self._dense(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)


@torch.compiler.assume_constant_result
def _choose(
    device: torch.device, dtype: torch.dtype, heads: int, tokens: int, width: int, density: float
) -> tuple[str, str]:
    """`faster` on a device, where the kernel that was measured can run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    chosen, reason = faster(name, heads, tokens, width, density)
    if chosen == "paro" and kernels_for(device, dtype, width)[0] != "hopper":
        return "sdpa", f"the kernel that was measured does not run here: {kernels_for(device, dtype, width)[1]}"
    return chosen, reason
