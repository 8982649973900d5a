"""`fulgurite bench attention-numerics`: what rounding costs, by groups of scales, with and without the head's order.

Axis legend: H head, N token, D channel, R query block, C key block.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...registry import COMMANDS
from ..paro.numerics import PRECISIONS, Precision, paro_attention
from ..paro.orders import Layout, reorder
from .front import cell, write_numbers

WIDTH, BLOCK = 64, 64
GRID = (16, 16, 16)  # 4,096 tokens of a video
ALONG_FRAMES = 2  # the order HWF, which lays a place's frames side by side
COLUMNS = ("data", "order", "numbers", "P's scales", "error", "incoherence")
NUMBERS: Mapping[str, tuple[str, Precision]] = {
    "QK int8": ("-", PRECISIONS["int8_qk"]),
    "int8, row": ("row", Precision("int8", "int8", p_scale="row")),
    "int8, block": ("block", Precision("int8", "int8", p_scale="block")),
    "QK int4": ("-", PRECISIONS["int4_qk"]),
    "int4, row": ("row", Precision("int4", "int4", p_scale="row")),
    "int4, block": ("block", Precision("int4", "int4", p_scale="block")),
}


@COMMANDS.register("bench attention-numerics", paper="2506.16054")
def bench(seed: int = 0, json: Path | None = None) -> int:
    """Relative L2 errors of attention in integers against exact attention, on synthetic heads of 4,096 tokens, head
    width 64: P's scales by row or by 64x64 block, tokens as they lie or in the head's order. Runs on a CPU.

    `random` heads have a nearly even softmax; `along frames` look at their own place in all frames, as heads of video
    transformers do, and HWF is their order. incoherence is the mean over P's groups of largest / mean (arXiv
    2506.16054, section 4): what rounding by groups suffers from.

    Args:
        seed: of the heads.
        json: file for the numbers.
    """
    rows = table(seed)
    print(" ".join(f"{c:>13}" for c in COLUMNS))
    for row in rows:
        print(" ".join(f"{cell(row[c]):>13}" for c in COLUMNS))
    if json:
        write_numbers(json, "attention-numerics", seed, rows)
    return 0


def table(seed: int) -> list[dict[str, Any]]:
    """The rows: every kind of head, order and numbers."""
    permutation = Layout(GRID).table()[ALONG_FRAMES][None]
    rows = []
    for kind, tensors in (("random", random_heads(seed)), ("along frames", heads_along_frames(seed))):
        for order in ("as they lie", "HWF"):
            ordered = tensors if order == "as they lie" else [reorder(t, permutation) for t in tensors]
            exact = paro_attention(*(t.double() for t in ordered), precision=PRECISIONS["float"])
            spread = incoherence(ordered[0], ordered[1])
            for numbers, (scales, precision) in NUMBERS.items():
                given = paro_attention(*ordered, precision=precision)
                rows.append({
                    "data": kind, "order": order, "numbers": numbers.partition(",")[0], "P's scales": scales,
                    "error": float((given - exact).norm() / exact.norm()), "incoherence": spread.get(scales),
                })  # fmt: skip
    return rows


def random_heads(seed: int) -> list[Tensor]:
    """Queries, keys and values without any order, [1, 1, N, D]."""
    generator = torch.Generator().manual_seed(seed)
    size = Layout(GRID).num_tokens
    return [torch.randn(1, 1, size, WIDTH, generator=generator) for _ in range(3)]


def heads_along_frames(seed: int, far: float = 24.0, near: float = 2.0, gain: float = 2.0) -> list[Tensor]:
    """A head that looks at what lies near it in the picture, in all frames alike; keys have a mean.

    Args:
        seed: of all draws.
        far: reach of similarity along frames, in tokens.
        near: along height and width.
        gain: size of the similar part of queries and keys.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    axes = torch.meshgrid(*(torch.arange(n) for n in GRID), indexing="ij")
    place_N3 = torch.stack(axes, -1).view(-1, 3) / torch.tensor([far, near, near])
    angle = place_N3 @ draw(3, WIDTH // 2)
    similar = gain * torch.cat([angle.cos(), angle.sin()], 1)
    q = similar + 0.3 * draw(len(similar), WIDTH)
    k = similar + 0.3 * draw(len(similar), WIDTH) + 2.0 * draw(WIDTH)
    v = torch.sin(place_N3 @ draw(3, WIDTH) + 6 * draw(WIDTH)) + 0.5 * draw(len(similar), WIDTH)
    return [t[None, None] for t in (q, k, v)]


def incoherence(q_BHND: Tensor, k_BHND: Tensor) -> dict[str, float]:
    """Mean over groups of P's largest / mean value, by rows of the map and by its 64x64 blocks."""
    p_NM = (q_BHND[0, 0] @ k_BHND[0, 0].T * WIDTH**-0.5).softmax(-1)
    blocks_RCbb = p_NM.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).movedim(2, 1)
    by_block = blocks_RCbb.amax((2, 3)) / blocks_RCbb.mean((2, 3))
    return {"row": float((p_NM.amax(1) / p_NM.mean(1)).mean()), "block": float(by_block.mean())}
