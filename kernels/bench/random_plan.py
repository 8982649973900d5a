"""A plan with random orders and masks: for times, which do not depend on what a model looks at."""

from __future__ import annotations

import torch

from ..paro.orders import Layout
from ..paro.plan import Plan, PlanMeta, forced_blocks, pack


def random_plan(
    layout: Layout, num_layers: int, num_heads: int, density: float, seed: int = 0, device: torch.device | str = "cpu"
) -> Plan:
    """One timestep bin; every layer and head has other masks, and an order of its own.

    Blocks with text, the last block and the diagonal are kept; of the others as many as the density leaves for them.

    Args:
        layout: grid and text of the model's tokens.
        num_layers: layers that the plan counts.
        num_heads: heads of each.
        density: kept blocks / all blocks, in the mean; where what has to be kept is more, it is more.
        seed: of all draws.
        device: where it is drawn, and lies.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    size = -(-layout.num_tokens // 64)
    forced = forced_blocks(layout).to(device)
    kept = forced | forced[:, None] | torch.eye(size, dtype=torch.bool, device=device)
    free = size**2 - int(kept.sum())
    share = 0.0 if not free else max(0.0, (density * size**2 - int(kept.sum())) / free)
    masks, counted = [], []
    for _ in range(num_layers):  # a layer at a time: its bytes are eight times its bits
        keep = (torch.rand(num_heads, size, size, generator=generator, device=device) < share) | kept
        masks.append(pack(keep))
        counted.append(keep.float().mean((1, 2)))
    num_orders = len(layout.orders)
    orders = torch.randint(num_orders, (num_layers, num_heads), generator=generator, device=device).to(torch.uint8)
    unknown, metric = torch.zeros(1, num_layers, num_heads), torch.zeros(num_layers, num_heads, num_orders)
    meta = PlanMeta(layout.grid, layout.text, layout.side, (), arm="random", target={"density": density})
    empty = torch.zeros(num_layers, num_heads, dtype=torch.bool)
    counted_TLH = torch.stack(counted)[None]
    plan = Plan(meta, torch.stack(masks)[None], orders, empty, counted_TLH, unknown, unknown, metric, metric, metric)
    return plan.to(torch.device(device))
