"""From captured q and k to orders and masks, without ever holding an attention map (arXiv 2506.16054, sections 4.1,
4.2).

Two passes over a head: the log-sum-exp of every row, which no order changes; then, for an order, the sum, the maximum
and the number of small entries of every 64x64 block of the softmax. Both go by strips of rows.

The order is the one with the smallest

    alpha * norm(1 - M_sparse) + (1 - alpha) * norm(M_quant)        norm: divided by its sum over the orders

M_sparse is the share of blocks in which at least `sigma` of the entries are below `eps`, M_quant the mean over blocks
of maximum / mean. Deviations: the paper prints alpha * norm(M_sparse) under a minimum, which would choose the least
sparse order; and eps = 1e-3 whatever the length, while a map's mean is 1 / N: here eps is 17.8 / N unless it is given,
which is 1e-3 at the paper's 17,776 tokens.

A third figure stands beside the two: `held`, the share of the attention in the fullest 30 % of blocks, which is what a
mask keeps. Orders can be chosen by it alone; M_sparse calls a block with one sharp diagonal sparse (1/64 of its
entries are not small), and a map with a diagonal in every block sparse throughout.

Axis legend: H head, N token, D channel, O order, R query block, C key block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .orders import Layout
from .plan import BLOCK, forced_blocks

STRIP_ELEMENTS = 1 << 24  # of a strip of the map
EPS_TIMES_N = 17.8
STRIP_COPIES = 4  # strips that live at once: scores, their exponentials, what a reduction makes of them
COUNTED = 3  # floats kept for a block: sum, maximum, number of small entries


@dataclass(frozen=True)
class Metric:
    """Settings of the metric that chooses a head's order.

    Attributes:
        alpha: weight of sparsity against incoherence; the paper gives none.
        eps: an entry of the map below it counts as small; None is 17.8 / N.
        sigma: share of small entries that makes a block sparse.
        held_at: share of blocks at which `held` is measured.
    """

    alpha: float = 0.5
    eps: float | None = None
    sigma: float = 0.9
    held_at: float = 0.3

    def eps_for(self, num_tokens: int) -> float:
        """The threshold at a length."""
        return EPS_TIMES_N / num_tokens if self.eps is None else self.eps


@dataclass(frozen=True)
class BlockStatistics:
    """Of every 64x64 block of a head's map, float32 [R, C]; entries beyond the last token are none.

    Attributes:
        mass: sum of its entries.
        top: largest entry.
        small: number of entries below eps.
        size: number of its entries.
    """

    mass: Tensor
    top: Tensor
    small: Tensor
    size: Tensor

    def metrics(self, metric: Metric) -> Tensor:
        """M_sparse, M_quant and `held`, float32 [3]."""
        sparse = (self.small >= metric.sigma * self.size).float().mean()
        mean = (self.mass / self.size).clamp_min(torch.finfo(torch.float32).tiny)
        fullest = self.mass.flatten().topk(max(1, round(metric.held_at * self.mass.numel()))).values
        return torch.stack([sparse, (self.top / mean).mean(), fullest.sum() / self.mass.sum()]).cpu()


@dataclass(frozen=True)
class Layer:
    """A layer's captured heads, in the tokens' own order, with all that precedes attention (norms, rotary positions).

    Attributes:
        q_HND, k_HND: queries and keys.
        layout: how the tokens lie.
        seen_N: bool, False = a key that nobody sees, such as padding of a text; None = all are seen.
    """

    q_HND: Tensor
    k_HND: Tensor
    layout: Layout
    seen_N: Tensor | None = None

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.q_HND.shape[-1] ** -0.5)

    def scores(self, head: int, permutation_N: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(first row, scores of some whole blocks of rows) of a head in an order, in float32."""
        q_ND, k_ND = self.q_HND[head][permutation_N], self.k_HND[head][permutation_N].float() * self.scale
        hidden_N = None if self.seen_N is None else ~self.seen_N[permutation_N]
        rows = max(1, STRIP_ELEMENTS // (BLOCK * len(k_ND))) * BLOCK
        for start in range(0, len(q_ND), rows):
            scores = q_ND[start : start + rows].float() @ k_ND.T
            yield start, scores if hidden_N is None else scores.masked_fill_(hidden_N, float("-inf"))


def row_log_sum_exp(layer: Layer, head: int) -> Tensor:
    """log(sum(exp(scores))) of every row of a head, float32 [N]."""
    plain = torch.arange(layer.layout.num_tokens, device=layer.q_HND.device)
    made = torch.empty(len(plain), device=plain.device)
    for start, scores in layer.scores(head, plain):
        made[start : start + len(scores)] = torch.logsumexp(scores, 1)
    return made


def block_statistics(layer: Layer, head: int, lse_N: Tensor, permutation_N: Tensor, eps: float) -> BlockStatistics:
    """What the metric and the masks need of a head's map in an order.

    Args:
        layer: the captured heads.
        head: which one.
        lse_N: from `row_log_sum_exp`.
        permutation_N: the order (`orders.permutation`).
        eps: entries below it count as small.
    """
    lse = lse_N[permutation_N, None]
    side = _side(len(lse), lse.device)
    # written in place: small results kept between large strips would break up the CPU's memory, 2 GB at 75,600 tokens
    mass, top, small = torch.empty(3, len(side), len(side), device=lse.device)
    for start, scores in layer.scores(head, permutation_N):
        p_NM = scores.sub_(lse[start : start + len(scores)]).exp_()
        rows = slice(start // BLOCK, start // BLOCK + -(-len(scores) // BLOCK))
        mass[rows], top[rows] = _blocks(p_NM, "sum"), _blocks(p_NM, "amax")
        small[rows] = _blocks((p_NM < eps).float(), "sum")
    return BlockStatistics(mass, top, small, side[:, None] * side)


def order_metrics(layer: Layer, metric: Metric) -> Tensor:
    """M_sparse, M_quant and `held` of every head in every order, float32 [3, H, O], on the CPU."""
    table, eps = layer.layout.table(layer.q_HND.device), metric.eps_for(layer.layout.num_tokens)
    made = torch.zeros(3, len(layer.q_HND), len(table))
    for head in range(len(layer.q_HND)):
        lse_N = row_log_sum_exp(layer, head)
        for order, permutation_N in enumerate(table):
            made[:, head, order] = block_statistics(layer, head, lse_N, permutation_N, eps).metrics(metric)
    return made


def order_scores(sparse_HO: Tensor, quant_HO: Tensor, alpha: float) -> Tensor:
    """The corrected metric [..., O]; the smallest is best."""
    dense = 1 - sparse_HO
    shares = (x / x.sum(-1, keepdim=True).clamp_min(1e-12) for x in (dense, quant_HO))
    return sum((w * x for w, x in zip((alpha, 1 - alpha), shares, strict=True)), torch.zeros(()))


def choose_orders(sparse_HO: Tensor, quant_HO: Tensor, alpha: float) -> Tensor:
    """The best order of each head, int64 [...]."""
    return order_scores(sparse_HO, quant_HO, alpha).argmin(-1)


def block_mass(layer: Layer, orders_H: Tensor) -> Tensor:
    """Sums of the blocks of every head's map in its order, float32 [H, R, C]."""
    table = layer.layout.table(layer.q_HND.device)
    made = []
    for head, order in enumerate(orders_H.tolist()):
        made.append(block_statistics(layer, head, row_log_sum_exp(layer, head), table[order], 0.0).mass)
    return torch.stack(made)


def masks_by_density(mass_HRC: Tensor, layout: Layout, density: float, empty_H: Tensor | None = None) -> Tensor:
    """Blocks above one threshold for all heads, such that this share of all blocks is kept; bool [H, R, C].

    Blocks of text and the last ones are kept whatever they hold, and count; where they alone are more, they are all.

    Args:
        mass_HRC: sums of the blocks of a layer's heads.
        layout: how the tokens lie.
        density: kept blocks / all blocks, over all heads.
        empty_H: bool, heads that keep only what is always kept; the others keep the share between them.
    """
    keep = _always(mass_HRC, layout)
    open_HRC = ~keep if empty_H is None else ~keep & ~empty_H[:, None, None].to(keep.device)
    budget = round(density * keep.numel()) - int(keep.sum())
    return _largest(mass_HRC, open_HRC, budget) | keep


def masks_by_recall(mass_HRC: Tensor, layout: Layout, recall: float) -> Tensor:
    """The fewest blocks of each head that hold this share of its attention; bool [H, R, C]."""
    keep = _always(mass_HRC, layout)
    for head, mass in enumerate(mass_HRC):
        short = recall * float(mass.sum()) - float(mass[keep[head]].sum())
        falling = mass.masked_fill(keep[head], 0.0).flatten().sort(descending=True).values
        count = int((falling.cumsum(0) < short).sum()) + 1 if short > 0 else 0
        keep[head] |= _largest(mass, ~keep[head], count)
    return keep


def recall_of(mass_HRC: Tensor, keep_HRC: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the attention in kept blocks of each head: mean over the queries, and in its worst block of queries."""
    kept_HR, all_HR = (mass_HRC * keep_HRC).sum(2), mass_HRC.sum(2).clamp_min(1e-12)
    return (kept_HR.sum(1) / all_HR.sum(1)).clamp(0, 1), (kept_HR / all_HR).amin(1).clamp(0, 1)


def empty_heads(mass_HRC: Tensor, layout: Layout, share: float) -> Tensor:
    """Heads whose picture tokens send less than this share of their attention to picture tokens, bool [H].

    In blocks that hold no text and are not the last; a map without text has no empty head.
    """
    if not layout.text:
        return torch.zeros(len(mass_HRC), dtype=torch.bool)
    between = ~_always(mass_HRC[:1], layout)[0]
    rows = between.any(1)
    return ((mass_HRC * between).sum((1, 2)) < share * mass_HRC[:, rows].sum((1, 2))).cpu()


def peak_bytes(num_tokens: int, head_dim: int, num_heads: int, num_orders: int = 6) -> int:
    """An upper estimate of what calibrating one layer needs beside its q and k, in bytes.

    Strips of the map, one head's q and k in float32 and reordered, blocks of one head, masses and masks of all heads
    and the table of the orders.
    """
    num_blocks = -(-num_tokens // BLOCK)
    strip = max(STRIP_ELEMENTS, BLOCK * num_tokens) * 4
    head = 4 * num_tokens * head_dim * 4
    blocks = 2 * COUNTED * num_blocks**2 * 4
    layer = num_heads * num_blocks**2 * (4 + 4 + 1 + 1 + 8)  # masses, their product with the mask, masks, sorting
    return STRIP_COPIES * strip + head + blocks + layer + num_orders * num_tokens * 8


def _blocks(x_NM: Tensor, reduce: str) -> Tensor:
    """A strip reduced to its blocks; tokens beyond the last count as zeros."""
    short = [-size % BLOCK for size in x_NM.shape]
    if short[1]:  # the last columns apart: padding the strip would copy it
        whole = x_NM.shape[1] // BLOCK * BLOCK
        last = torch.nn.functional.pad(x_NM[:, whole:], (0, short[1]))
        return torch.cat([_blocks(part, reduce) for part in (x_NM[:, :whole], last) if part.shape[1]], 1)
    columns = getattr(x_NM.unflatten(1, (-1, BLOCK)), reduce)(2)
    return getattr(torch.nn.functional.pad(columns, (0, 0, 0, short[0])).unflatten(0, (-1, BLOCK)), reduce)(1)


def _side(num_tokens: int, device: torch.device) -> Tensor:
    """Tokens of each block, float32."""
    side = torch.full((-(-num_tokens // BLOCK),), float(BLOCK), device=device)
    side[-1] -= -num_tokens % BLOCK
    return side


def _always(mass_HRC: Tensor, layout: Layout) -> Tensor:
    forced = forced_blocks(layout).to(mass_HRC.device)
    return (forced | forced[:, None]).expand(mass_HRC.shape).clone()


def _largest(mass: Tensor, open_: Tensor, count: int) -> Tensor:
    """The `count` largest of the open blocks; of equal ones the first."""
    chosen = torch.zeros_like(open_)
    count = min(count, int(open_.sum()))
    if count > 0:
        falling = mass.masked_fill(~open_, -1.0).flatten().argsort(descending=True, stable=True)
        chosen.view(-1)[falling[:count]] = True
    return chosen


def bins_of(timesteps: Sequence[float], num_bins: int) -> tuple[float, ...]:
    """Timesteps between the bins: the first half of the steps has `num_bins` - 1 of its own, the second half shares
    one.

    Args:
        timesteps: the sampler's, falling.
        num_bins: bins, at least 1.

    Returns:
        num_bins - 1 falling timesteps, each halfway between two steps; fewer if the first half has too few steps.
    """
    first_half = len(timesteps) // 2
    num_own = min(num_bins - 1, first_half)
    starts = [round(first_half * i / num_own) for i in range(1, num_own + 1)] if num_own else []
    return tuple((float(timesteps[start - 1]) + float(timesteps[start])) / 2 for start in starts)


def bin_of(timestep: float, edges: Sequence[float]) -> int:
    """Number of the bin that a timestep falls into, as the backend finds it."""
    return sum(timestep < edge for edge in edges)
