"""From the captures of all layers to plans: the orders of several arms, masks at several densities.

Axis legend: L layer, H head, O order, T timestep bin, R query block, C key block, N token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...datamodules.paro.captures import CaptureMeta
from ...kernels.paro.calibration import (
    Layer,
    Metric,
    bin_of,
    block_mass,
    choose_orders,
    empty_heads,
    masks_by_density,
    masks_by_recall,
    order_metrics,
    order_scores,
    recall_of,
)
from ...kernels.paro.plan import Plan, PlanMeta, pack
from ...registry import UserError

Captures = Sequence[tuple[float, Callable[[], Layer]]]  # timestep, and what loads it

ARMS: Mapping[str, str] = {
    "paro": "by the corrected metric",
    "held": "by what the fullest blocks hold",
    "none": "as the tokens lie",
    "random": "drawn by seed",
    "single": "one for the whole model, the best by the metric",
}


@dataclass(frozen=True)
class Target:
    """What masks are made for: a density (kept blocks / all blocks), or a recall (kept attention / all of it)."""

    kind: str
    value: float

    @property
    def name(self) -> str:
        """As part of a file's name, such as `d0.3`."""
        return f"{self.kind[0]}{self.value:g}"


def measure_layer(captures: Captures, metric: Metric) -> Tensor:
    """M_sparse, M_quant and `held` of every head and order, mean over the captures, float32 [3, H, O]."""
    return torch.stack([order_metrics(load(), metric) for _, load in captures]).mean(0)


def arm_orders(arm: str, metrics_3LHO: Tensor, alpha: float, seed: int) -> Tensor:
    """The orders [L, H] of an arm.

    Raises:
        UserError: for an arm that does not exist.
    """
    sparse, quant, held = metrics_3LHO
    num_orders = sparse.shape[-1]
    if arm == "paro":
        return choose_orders(sparse, quant, alpha)
    if arm == "held":
        return held.argmax(-1)
    if arm == "none":
        return torch.zeros(sparse.shape[:2], dtype=torch.int64)
    if arm == "random":
        return torch.randint(num_orders, sparse.shape[:2], generator=torch.Generator().manual_seed(seed))
    if arm == "single":
        best = int(order_scores(sparse, quant, alpha).sum((0, 1)).argmin())
        return torch.full(sparse.shape[:2], best)
    raise UserError(f"no arm '{arm}' of orders; there are {', '.join(ARMS)}")


def plan_meta(captures: CaptureMeta, arm: str, target: Target, metric: Metric, made_with: str) -> PlanMeta:
    """The metadata of a plan from captures."""
    settings = {"alpha": metric.alpha, "eps": metric.eps_for(captures.layout.num_tokens), "sigma": metric.sigma}
    return PlanMeta(
        captures.grid, captures.text, captures.side, captures.edges, captures.model, captures.model_hash, arm,
        {target.kind: target.value}, settings, made_with,
    )  # fmt: skip


class PlanBuilder:
    """Builds one arm's plans at several targets, a layer at a time.

    Args:
        captures: what the captures are of.
        arm: name of the arm.
        orders_LH: its orders.
        metrics_3LHO: the raw metrics of all orders.
        targets: one plan for each.
        metric: settings of the metric.
        empty_below: a head whose picture tokens send less than this share to picture tokens keeps text alone.
        made_with: the captures in words.
    """

    def __init__(
        self,
        captures: CaptureMeta,
        arm: str,
        orders_LH: Tensor,
        metrics_3LHO: Tensor,
        targets: Sequence[Target],
        metric: Metric,
        empty_below: float = 0.01,
        made_with: str = "",
    ) -> None:
        self._captures, self._orders, self._targets = captures, orders_LH, tuple(targets)
        self._empty_below = empty_below
        num_layers, num_heads, num_bins = *orders_LH.shape, len(captures.edges) + 1
        size = -(-captures.layout.num_tokens // 64)
        sparse, quant, held = metrics_3LHO.float()
        share = torch.zeros(num_bins, num_layers, num_heads)
        self.plans = {
            target.name: Plan(
                plan_meta(captures, arm, target, metric, made_with),
                torch.zeros(num_bins, num_layers, num_heads, size, -(-size // 8), dtype=torch.uint8),
                orders_LH.to(torch.uint8),
                torch.zeros(num_layers, num_heads, dtype=torch.bool),
share.clone(), share.clone(), share.clone(), sparse.clone(), quant.clone(), held.clone(),
            )
            for target in self._targets
        }  # fmt: skip

    def add_layer(self, layer: int, captures: Captures) -> None:
        """Fill in a layer of every plan; a bin's mass is the mean over its captures.

        Raises:
            UserError: if a bin has no capture.
        """
        layout, edges = self._captures.layout, self._captures.edges
        mass_by_bin: dict[int, list[Tensor]] = {b: [] for b in range(len(edges) + 1)}
        for timestep, load in captures:
            mass_by_bin[bin_of(timestep, edges)].append(block_mass(load(), self._orders[layer]))
        lacking = [b for b, found in mass_by_bin.items() if not found]
        if lacking:
            raise UserError(f"layer {layer}: no capture falls into the timestep bins {', '.join(map(str, lacking))}\n"
                            "fulgurite paro capture takes one step of every bin.")  # fmt: skip
        means = [torch.stack(found).mean(0) for _, found in sorted(mass_by_bin.items())]
        empty_H = empty_heads(torch.stack(means).mean(0), layout, self._empty_below)
        for target in self._targets:
            plan = self.plans[target.name]
            for time_bin, mass in enumerate(means):
                if target.kind == "density":
                    keep = masks_by_density(mass, layout, target.value, empty_H)
                    plan.empty[layer] = empty_H
                else:
                    keep = masks_by_recall(mass, layout, target.value)
                plan.masks[time_bin, layer] = pack(keep).cpu()
                plan.density[time_bin, layer] = keep.float().mean((1, 2)).cpu()
                mean, worst = recall_of(mass, keep)
                plan.recall[time_bin, layer], plan.recall_worst[time_bin, layer] = mean.cpu(), worst.cpu()


def build_plans(
    captures: CaptureMeta,
    layers: Iterable[tuple[int, Captures]],
    metrics_3LHO: Tensor,
    arms: Sequence[str],
    targets: Sequence[Target],
    metric: Metric,
    empty_below: float = 0.01,
    seed: int = 0,
    made_with: str = "",
) -> dict[tuple[str, str], Plan]:
    """The plans of all arms and targets, by (arm, target's name)."""
    builders = {
        arm: PlanBuilder(
            captures, arm, arm_orders(arm, metrics_3LHO, metric.alpha, seed), metrics_3LHO, targets, metric,
            empty_below, made_with,
        )
        for arm in arms
    }  # fmt: skip
    for layer, found in layers:
        for builder in builders.values():
            builder.add_layer(layer, found)
    return {(arm, name): plan for arm, builder in builders.items() for name, plan in builder.plans.items()}


def recall_on(plan: Plan, layer: int, captures: Captures) -> tuple[Tensor, Tensor, Tensor]:
    """What a plan's masks keep of other captures of a layer: density, mean and worst recall [H], mean over captures."""
    rows = []
    for timestep, load in captures:
        mass = block_mass(load(), plan.orders[layer].long())
        keep = plan.keep(bin_of(timestep, plan.meta.edges), layer)[0].to(mass.device)
        rows.append(torch.stack([keep.float().mean((1, 2)), *recall_of(mass, keep)]).cpu())
    density, mean, worst = torch.stack(rows).mean(0)
    return density, mean, worst


def without_masks(plan: Plan) -> Plan:
    """The same orders with every block kept: what quantisation alone costs."""
    size = plan.num_blocks
    full = pack(torch.ones(*plan.density.shape, size, size, dtype=torch.bool))
    ones = torch.ones_like(plan.density)
    meta = replace(plan.meta, target={"density": 1.0})
    return replace(plan, meta=meta, masks=full, density=ones, recall=ones.clone(), recall_worst=ones.clone())
