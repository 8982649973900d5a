"""The shapes, masks, clock and error that every contestant of `fulgurite bench attention` shares.

Axis legend: B batch, H head, N token, D channel, R query block, C key block.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masks import BlockMask
from ..paro.orders import Layout

BLOCK = 64
WARM_UPS = 3
ROUNDS = 20
LEAD_CYCLES = 1_000_000  # of the GPU's clock, about half a millisecond
BUDGET_MS = 500.0  # of the timed rounds of one cell; at least 5 are run
ERROR_HEADS, ERROR_BLOCKS = 2, 6  # the exact output is computed for these, spread over the shape


@dataclass(frozen=True)
class Shape:
    """A model's self-attention.

    Attributes:
        heads: number of heads.
        width: channels of a head.
        layout: grid and text of its tokens.
    """

    heads: int
    width: int
    layout: Layout

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.layout.num_tokens

    def flops(self, density: float) -> float:
        """Operations of the kept part of the map (two for a multiply-add)."""
        return 4.0 * self.heads * self.tokens**2 * self.width * density


SHAPES = {
    "cogvideox": Shape(48, 64, Layout((13, 30, 45), 226)),  # CogVideoX-5B, 49 frames of 480x720
    "wan480": Shape(40, 128, Layout((21, 30, 52))),  # Wan2.1-14B, 81 frames of 480x832
    "wan720": Shape(10, 128, Layout((21, 45, 80))),  # the same at 720x1280, 10 of its 40 heads
    "flux": Shape(24, 128, Layout((64, 64), 512)),  # Flux.1, 1024x1024
    "small": Shape(4, 64, Layout((4, 8, 13), 10)),  # for tests
}


@dataclass(frozen=True)
class Timing:
    """Of repeated runs, in ms: median, and the 10th and 90th of a hundred."""

    median: float
    low: float
    high: float


def random_mask(heads: int, blocks: int, density: float, seed: int, device: torch.device) -> Tensor:
    """Blocks kept at random, with each row's diagonal one; bool [1, H, R, R]."""
    generator = torch.Generator(device=device).manual_seed(seed)
    keep = torch.rand(1, heads, blocks, blocks, device=device, generator=generator) < density
    return keep | torch.eye(blocks, dtype=torch.bool, device=device)


def band_mask(heads: int, blocks: int, density: float, device: torch.device) -> Tensor:
    """A band around the diagonal, as wide as the density asks; bool [1, H, R, R]."""
    place = torch.arange(blocks, device=device)
    width = max(1, round(density * blocks))
    start = (place - width // 2).clamp(0, blocks - width)[:, None]
    keep = (place >= start) & (place < start + width)
    return keep.expand(1, heads, blocks, blocks).contiguous()


def coarsened(keep_1HRC: Tensor, side: int) -> Tensor:
    """The smallest mask of larger blocks, `side` blocks of 64 wide, that keeps all that this one does."""
    short = -keep_1HRC.shape[-1] % side
    wide = torch.nn.functional.pad(keep_1HRC, (0, short, 0, short))
    return wide.unflatten(3, (-1, side)).unflatten(2, (-1, side)).any(5).any(3)


def measured(run: Callable[[], object]) -> Timing:
    """Time of a call on the GPU by events, after warm-up, one call after the other of this kind alone.

    The GPU waits a little before each call, so that the CPU's launching is ahead of it, as in a model.
    """
    for _ in range(WARM_UPS):
        run()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < ROUNDS and (len(times) < 5 or sum(times) < BUDGET_MS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(LEAD_CYCLES)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    ranked = sorted(times)
    return Timing(statistics.median(ranked), ranked[len(ranked) // 10], ranked[-1 - len(ranked) // 10])


def error(
    out_BHND: Tensor, q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor, keep: BlockMask | None, permutation_HN: Tensor
) -> float:
    """Relative L2 distance from attention in float32 under the same mask, over some blocks of queries of some heads.

    Args:
        out_BHND: what was computed, in the tokens' own order.
        q_BHND, k_BHND, v_BHND: what it was computed from.
        keep: the mask, in the order of `permutation_HN`; None = dense.
        permutation_HN: which token each place of the mask's order holds.
    """
    heads, size = q_BHND.shape[1], q_BHND.shape[2]
    blocks = -(-size // BLOCK)
    wrong = right = 0.0
    for head in sorted({i * (heads - 1) // max(1, ERROR_HEADS - 1) for i in range(ERROR_HEADS)}):
        order = permutation_HN[head].long()
        k, v = k_BHND[0, head][order].float(), v_BHND[0, head][order].float()
        for block in sorted({i * (blocks - 1) // (ERROR_BLOCKS - 1) for i in range(ERROR_BLOCKS)}):
            tokens = order[block * BLOCK : (block + 1) * BLOCK]
            scores = q_BHND[0, head][tokens].float() @ k.T * q_BHND.shape[3] ** -0.5
            if keep is not None:
                row = keep.keep[0, head % keep.keep.shape[1], block * BLOCK // keep.block]
                scores = scores.masked_fill(~row.repeat_interleave(keep.block)[:size], float("-inf"))
            exact = scores.softmax(-1) @ v
            wrong += float((out_BHND[0, head][tokens].float() - exact).square().sum())
            right += float(exact.square().sum())
    return (wrong / right) ** 0.5
