"""`fulgurite paro show`: a plan in words and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...datamodules.files import atomic_write
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ...datamodules.paro.captures import CaptureStore
    from ...kernels.paro.plan import Plan

HEADS_SHOWN = 4
WARM, COLD = "magma", "viridis"


@COMMANDS.register("paro show", paper="2506.16054")
def show(plan: Path, out: Path | None = None, captures: Path | None = None) -> None:
    """Check a plan, say what is in it, and draw density, recall, orders and masks.

    Args:
        plan: the plan's file.
        out: PNG to write; default: beside the plan.
        captures: captures of the same model, for the maps of some heads before and after ordering.
    """
    from ...datamodules.paro.captures import CaptureStore
    from ...kernels.paro.orders import order_name
    from ...kernels.paro.plan import Plan

    found = Plan.load(plan)
    store = CaptureStore(captures) if captures is not None else None
    if store is not None and store.meta.layout != found.meta.layout:
        raise UserError(f"{captures}: holds captures of grid {'x'.join(map(str, store.meta.grid))}, the plan is for "
                        f"{'x'.join(map(str, found.meta.grid))}")  # fmt: skip
    meta, file = found.meta, out or plan.with_suffix(".png")
    num_layers, num_heads = found.orders.shape
    counts = found.orders.flatten().bincount(minlength=len(meta.layout.orders)).tolist()
    orders = ", ".join(f"{order_name(meta.grid, o)} {n}" for o, n in enumerate(counts) if n)
    text = f"{meta.text} text tokens as {meta.side}" if meta.text else "no text"
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(
        f"{plan}: for {meta.model or 'any model'}, grid {'x'.join(map(str, meta.grid))}, {text}\n"
        f"{num_layers} layers of {num_heads} heads, {len(meta.edges) + 1} timestep bins (below "
        f"{', '.join(f'{e:g}' for e in meta.edges) or 'none'}), {found.num_blocks}x{found.num_blocks} blocks of 64\n"
        f"orders ({meta.arm}): {orders}; {int(found.empty.sum())} empty heads\n"
        f"density {float(found.density.mean()):.3f} ({float(found.density.min()):.3f} to "
        f"{float(found.density.max()):.3f}), recall {float(found.recall.mean()):.3f} (least "
        f"{float(found.recall.min()):.3f}; worst block of queries {float(found.recall_worst.min()):.3f})\n"
        f"made from {meta.made_with or 'nothing that it names'}"
    )
    draw(found, store, file)
    screen.print(f"picture in {file}")


def draw(plan: Plan, store: CaptureStore | None, file: Path) -> None:
    """The picture: by layer and head density, recall and order; of four heads the mask, with captures the maps too.

    The heads are spread evenly over the recall, the least first.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from ...kernels.paro.orders import order_name

    num_heads = plan.orders.shape[1]
    recall_LH = plan.recall.mean(0)
    ranked = recall_LH.flatten().argsort().tolist()
    count = min(HEADS_SHOWN, len(ranked))
    chosen = [ranked[round(i * (len(ranked) - 1) / max(1, count - 1))] for i in range(count)]
    maps = 3 if store is not None else 1
    figure, axes = pyplot.subplots(1 + maps, 4, figsize=(13, 3.1 * (1 + maps)), layout="constrained", squeeze=False)
    tops = [
        ("density", plan.density.mean(0), COLD, 0, 1),
        ("recall, mean over queries", recall_LH, COLD, None, 1),
        ("recall, worst block of queries", plan.recall_worst.amin(0), COLD, 0, 1),
        ("axis order", plan.orders.float(), "tab10", 0, 9),
    ]
    for axis, (title, values, colours, low, high) in zip(axes[0], tops, strict=True):
        image = axis.imshow(values.numpy(), aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set(title=title, xlabel="head", ylabel="layer")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.yaxis.get_major_locator().set_params(integer=True)
        if title != "axis order":
            figure.colorbar(image, ax=axis)
            continue
        for order in range(len(plan.meta.layout.orders)):
            axis.plot([], [], "s", color=image.cmap(image.norm(order)), label=order_name(plan.meta.grid, order))
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    for column in range(4):
        for row in range(1, 1 + maps):
            axes[row][column].set_axis_off()
        if column >= count:
            continue
        layer, head = divmod(chosen[column], num_heads)
        order = int(plan.orders[layer, head])
        name = f"layer {layer}, head {head}"
        keep = plan.keep(0, layer)[0, head]
        title = f"{name}: mask, {float(keep.float().mean()):.2f} kept, {float(plan.recall[0, layer, head]):.3f} recall"
        pictures: list[tuple[str, Tensor, str]] = [(title, keep.float(), "gray_r")]
        if store is not None:
            before, after = (_map(store, layer, head, o) for o in (0, order))
            pictures = [
                (f"{name}: map as tokens lie", before, WARM),
                (f"in the order {order_name(plan.meta.grid, order)}", after, WARM),
                *pictures,
            ]
        for row, (title, values, colours) in enumerate(pictures, 1):
            axes[row][column].imshow(values.numpy(), cmap=colours, interpolation="nearest")
            axes[row][column].set_title(title, fontsize=8)
    figure.suptitle("attention mass of 64x64 blocks (log scale) and masks, first timestep bin", fontsize=10)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)


def _map(store: CaptureStore, layer: int, head: int, order: int) -> Tensor:
    """Logarithm of the blocks' mass of one head in the earliest capture of its layer."""
    import torch

    from ...kernels.paro.calibration import Layer, block_mass

    held = store.load(store.select(layer, "calibrate")[0])
    one = Layer(held.q_HND[head : head + 1], held.k_HND[head : head + 1], held.layout, held.seen_N)
    return block_mass(one, torch.tensor([order]))[0].clamp_min(1e-4).log10()
