"""`fulgurite bench attention-parallel`: `paro` over several GPUs by heads, beside one of them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...registry import COMMANDS, UserError
from ..head_parallel import HeadExchange, Placement, imbalance, place_by_cost, place_evenly
from ..paro import native
from ..paro.orders import Layout
from ..paro.plan import pack
from .contest import BLOCK, SHAPES, WARM_UPS, Shape, random_mask
from .front import write_numbers

ROUNDS = 10
SHARE = 2 / 3  # by which the densest head lies above the mean, and the sparsest below
WHOLE = {**SHAPES, "wan720": Shape(40, 128, Layout((21, 45, 80)))}  # all of Wan's heads


@dataclass(frozen=True)
class Row:
    """Times of one way, in ms, of the slowest rank.

    Attributes:
        way: one GPU, or how heads are placed.
        ranks: GPUs.
        all_ms: all of it.
        exchange_ms: of which bringing tokens to heads and back, timed alone.
        imbalance: blocks of the rank with most to do over the mean.
        speed_up: over one GPU.
        equal: whether the output is one GPU's, to the bit.
    """

    way: str
    ranks: int
    all_ms: float
    exchange_ms: float
    imbalance: float
    speed_up: float
    equal: bool


@COMMANDS.register("bench attention-parallel", paper="2506.16054")
def bench(shape: str = "wan720", density: float = 0.3, seed: int = 0, json: Path | None = None) -> int:
    """Time `paro` over all of this machine's GPUs, each with a part of the tokens before and after (DeepSpeed-Ulysses).

    Heads keep different shares of random blocks, from a third of the density to five thirds. They are placed as they
    lie, and by how many blocks they keep. Times are medians by CUDA events, of the rank that takes longest.

    Args:
        shape: cogvideox, wan480, wan720 (here with all its 40 heads), flux or small.
        density: share of kept blocks, in the mean over heads.
        seed: of inputs, orders and masks.
        json: file for the numbers.

    Raises:
        UserError: for an unknown shape, a density that is no share, fewer than two GPUs, or more of them than heads.
    """
    if shape not in WHOLE:
        raise UserError(f"--shape {shape}: one of {', '.join(WHOLE)}")
    if not 0 < density * (1 + SHARE) <= 1:
        raise UserError(f"--density {density}: above 0 and at most {1 / (1 + SHARE):.2f}, for the densest head's sake")
    count = torch.cuda.device_count()
    if count < 2:
        raise UserError(f"bench attention-parallel compares several GPUs with one: PyTorch sees {count} here")
    if (heads := WHOLE[shape].heads) < count:
        raise UserError(
            f"--shape {shape}: {heads} heads for {count} GPUs, and each needs one\n"
            "Take a larger shape, or name fewer GPUs in CUDA_VISIBLE_DEVICES."
        )
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (count, folder, shape, density, seed), nprocs=count)
        rows = [Row(**row) for row in torch.load(Path(folder) / "rows.pt")]
    card = torch.cuda.get_device_name()
    print(f"{shape} at density {density}, {card}")
    print(f"{'':>10} {'GPUs':>5} {'all, ms':>9} {'exchange':>9} {'imbalance':>9} {'times':>7}  equal")
    for r in rows:
        numbers = f"{r.all_ms:9.3f} {r.exchange_ms:9.3f} {r.imbalance:9.3f} {r.speed_up:7.2f}"
        print(f"{r.way:>10} {r.ranks:>5} {numbers}  {'yes' if r.equal else 'NO'}")
    if json:
        table = [asdict(row) for row in rows]
        write_numbers(json, "attention-parallel", seed, table, device=card, shape=shape, density=density)
    return 0 if all(row.equal for row in rows) else 1


def densities(num_heads: int, mean: float, seed: int) -> list[float]:
    """Of each head: evenly from a third of the mean to five thirds, in a random order."""
    spread = torch.linspace(1 - SHARE, 1 + SHARE, num_heads)[
        torch.randperm(num_heads, generator=torch.Generator().manual_seed(seed))
    ]
    return (mean * spread).tolist()


def _rank(rank: int, count: int, folder: str, name: str, density: float, seed: int) -> None:
    """One GPU's process."""
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("nccl", init_method=meeting, rank=rank, world_size=count, device_id=device)
    try:
        rows = _rows(rank, count, WHOLE[name], density, seed, device)
        if rank == 0:
            torch.save([asdict(row) for row in rows], Path(folder) / "rows.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _rows(rank: int, count: int, shape: Shape, density: float, seed: int, device: torch.device) -> list[Row]:
    generator = torch.Generator(device=device).manual_seed(seed)
    size = (1, shape.heads, shape.tokens, shape.width)
    q, k, v = (torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(3))
    table = shape.layout.table(device).int()
    perm = table[torch.arange(shape.heads, device=device) % len(table)].contiguous()
    blocks = -(-shape.tokens // BLOCK)
    shares = densities(shape.heads, density, seed)
    keep = torch.cat([random_mask(1, blocks, share, seed + i, device) for i, share in enumerate(shares)], 1)
    bits, cost = pack(keep), keep.sum((0, 2, 3)).tolist()
    scale = shape.width**-0.5

    def alone() -> Tensor:
        return native.paro_forward(q, k, v, bits, perm, None, scale)

    bounds = [shape.tokens * r // count for r in range(count + 1)]
    sizes = tuple(high - low for low, high in pairwise(bounds))
    own = slice(bounds[rank], bounds[rank + 1])
    mine = [x[:, :, own].contiguous() for x in (q, k, v)]
    whole = alone()
    one_ms = _slowest(alone, device)
    rows = [Row("one GPU", 1, one_ms, 0.0, 1.0, 1.0, True)]
    ways: dict[str, Placement] = {
        "as they lie": place_evenly(shape.heads, count), "by cost": place_by_cost(cost, count)
    }  # fmt: skip
    for way, placement in ways.items():
        exchange = HeadExchange(placement, sizes)
        heads = torch.tensor(placement[rank], device=device)
        bits_h, perm_h = bits[:, heads].contiguous(), perm[heads].contiguous()

        def bring(exchange: HeadExchange = exchange) -> list[Tensor]:
            return [exchange.to_heads(x) for x in mine]

        def together(exchange: HeadExchange = exchange, bits_h: Tensor = bits_h, perm_h: Tensor = perm_h) -> Tensor:
            q_h, k_h, v_h = (exchange.to_heads(x) for x in mine)
            return exchange.to_tokens(native.paro_forward(q_h, k_h, v_h, bits_h, perm_h, None, scale))

        def there_and_back(exchange: HeadExchange = exchange, bring: Callable[[], list[Tensor]] = bring) -> Tensor:
            return exchange.to_tokens(bring()[0])

        equal = torch.tensor(float(torch.equal(together(), whole[:, :, own])), device=device)
        torch.distributed.all_reduce(equal, torch.distributed.ReduceOp.MIN)
        took_ms = _slowest(together, device)
        moved_ms = _slowest(there_and_back, device)
        rows.append(
            Row(way, count, took_ms, moved_ms, imbalance(cost, placement), one_ms / took_ms, bool(equal.item()))
        )
    return rows


def _slowest(run: Callable[[], Any], device: torch.device) -> float:
    """Median time in ms, of the rank that takes longest; as many calls on every rank, each begun together."""
    times = []
    for _ in range(WARM_UPS + ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.distributed.barrier()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        took = torch.tensor(start.elapsed_time(end), device=device)
        torch.distributed.all_reduce(took, torch.distributed.ReduceOp.MAX)
        times.append(float(took))
    return statistics.median(times[WARM_UPS:])
