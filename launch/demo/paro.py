"""The tab of PAROAttention (arXiv 2506.16054): maps of the released GameCraft model before and after reordering."""

from __future__ import annotations

import atexit
import functools
import io
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tab import Tab, told

if TYPE_CHECKING:
    from torch import Tensor

    from ...datamodules.paro.captures import CaptureStore
    from ...kernels.paro.calibration import Layer

CHOSEN = "chosen by the metric"
START = 0.6  # density
FLOOR = 1e-6  # of a map's entries, for the logarithm


@dataclass(frozen=True)
class Head:
    """A head in an order.

    Attributes:
        map_NM: its attention map, float32.
        mass_RC: sums of the map's blocks.
        order: name of the axis order.
    """

    map_NM: Tensor
    mass_RC: Tensor
    order: str


@functools.cache
def captured() -> CaptureStore:
    """Queries and keys of one film of the released model, captured once.

    Raises:
        UserError: without the released weights.
    """
    import torch

    from ...lightning_modules.gamecraft.play.world import DEFAULT_WEIGHTS
    from ...lightning_modules.paro.capture import capture_films
    from ...lightning_modules.paro.subjects import GameCraftSubject

    subject = GameCraftSubject(DEFAULT_WEIGHTS, torch.device("cpu"))
    folder = Path(tempfile.mkdtemp(prefix="paro-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return capture_films(subject, subject.films()[:1], folder, 1)


@functools.lru_cache(maxsize=8)
def layer_of(number: int) -> Layer:
    """A layer's captured heads."""
    store = captured()
    return store.load(store.select(number, "calibrate")[0])


@functools.lru_cache(maxsize=64)
def head_in(number: int, head: int, order: str) -> Head:
    """A head's map in an order, `CHOSEN` for the one that calibration would take."""
    import torch

    from ...kernels.paro.calibration import Layer, Metric, block_mass, choose_orders, order_metrics
    from ...kernels.paro.orders import order_name

    layer = layer_of(number)
    one = Layer(layer.q_HND[head : head + 1], layer.k_HND[head : head + 1], layer.layout, layer.seen_N)
    names = [order_name(layer.layout.grid, o) for o in range(len(layer.layout.orders))]
    metric = Metric()
    if order == CHOSEN:
        sparse_HO, quant_HO = order_metrics(one, metric)[:2]
        index = int(choose_orders(sparse_HO, quant_HO, metric.alpha)[0])
    else:
        index = names.index(order)
    permutation = layer.layout.table("cpu")[index]
    map_NM = torch.cat([scores for _, scores in one.scores(0, permutation)]).softmax(1)
    return Head(map_NM, block_mass(one, torch.tensor([index]))[0], names[index])


def sparsened(head: Head, number: int, density: float) -> tuple[Tensor, float, float, float]:
    """The mask at a density, and what it loses.

    Returns:
        bool [R, C]; density in truth; recall; relative L2 error of the map, renormalised over what is kept.
    """
    from ...kernels.paro.calibration import masks_by_density, recall_of

    keep = masks_by_density(head.mass_RC[None], layer_of(number).layout, density)
    recall = float(recall_of(head.mass_RC[None], keep)[0][0])
    size = len(head.map_NM)
    wide = keep[0].repeat_interleave(64, 0).repeat_interleave(64, 1)[:size, :size]
    kept = head.map_NM * wide
    kept = kept / kept.sum(1, keepdim=True).clamp_min(1e-12)
    error = float((kept - head.map_NM).norm() / head.map_NM.norm())
    return keep[0], float(keep.float().mean()), recall, error


@told
def show(number: float, head: float, order: str, density: float) -> tuple[Any, str]:
    """The picture of a head and what a mask of this density loses, in the tokens' own order and in the chosen one."""
    from PIL import Image

    layer, index = int(number), int(head)
    rows = [head_in(layer, index, name) for name in (_plain(), order)]
    masks = [sparsened(row, layer, density) for row in rows]
    lines = ["| order | kept | recall | error |", "|---|---|---|---|"]
    lines += [f"| {r.order} | {d:.0%} | {c:.1%} | {e:.3f} |" for r, (_, d, c, e) in zip(rows, masks, strict=True)]
    return Image.open(io.BytesIO(_drawn(rows, [m[0] for m in masks]))), "\n".join(lines)


def build() -> None:
    """The tab's content."""
    import gradio

    gradio.Markdown(
        "One layer and head of the released game model: its attention map as the tokens lie (frame, row, column), "
        "and with the axes in another order. Masks keep whole blocks of 64 x 64, those of text and "
        "the last ones always: slide the density, see what is lost. Recall: share of the attention in kept "
        "blocks; error: relative L2 distance of the map, renormalised over them."
    )
    layers, heads = _size()
    least = math.ceil(20 * _least()) / 20
    with gradio.Row():
        with gradio.Column(scale=1):
            layer = gradio.Slider(0, layers - 1, value=layers // 2, step=1, label="Layer", elem_id="paro-layer")
            head = gradio.Slider(0, heads - 1, value=0, step=1, label="Head", elem_id="paro-head")
            order = gradio.Dropdown([CHOSEN, *_orders()], value=CHOSEN, label="Order of the axes", elem_id="paro-order")
            density = gradio.Slider(
                least, 1.0, value=max(least, START), step=0.05, label="Density", elem_id="paro-density"
            )
            go = gradio.Button("Draw", variant="primary", elem_id="paro-go")
            table = gradio.Markdown(elem_id="paro-table")
        with gradio.Column(scale=2):
            picture = gradio.Image(
                label="Maps and masks", show_label=False, interactive=False, elem_id="paro-picture", buttons=[]
            )
    given = [layer, head, order, density]
    go.click(show, given, [picture, table], concurrency_id="paro", concurrency_limit=1)
    for part in (layer, head, density):
        part.release(show, given, [picture, table], concurrency_id="paro", show_progress="minimal")
    order.change(show, given, [picture, table], concurrency_id="paro", show_progress="minimal")


def _size() -> tuple[int, int]:
    meta = captured().meta
    return meta.num_layers, meta.num_heads


def _least() -> float:
    """Share of the blocks that are always kept."""
    from ...kernels.paro.plan import forced_blocks

    forced_C = forced_blocks(captured().meta.layout)
    return float((forced_C[:, None] | forced_C).float().mean())


def _orders() -> list[str]:
    from ...kernels.paro.orders import order_name

    layout = captured().meta.layout
    return [order_name(layout.grid, o) for o in range(len(layout.orders))]


def _plain() -> str:
    return _orders()[0]


def _drawn(heads: list[Head], masks: list[Tensor]) -> bytes:
    """PNG: a row for each order, the map's logarithm and its mask."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 8.2), layout="constrained")
    axes = figure.subplots(len(heads), 2, squeeze=False)
    for row, (head, mask) in enumerate(zip(heads, masks, strict=True)):
        axes[row][0].imshow(head.map_NM.clamp_min(FLOOR).log10().numpy(), cmap="magma", interpolation="nearest")
        axes[row][0].set_title(f"attention in the order {head.order}, log scale", fontsize=10)
        axes[row][1].imshow(mask.float().numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes[row][1].set_title("blocks that are kept (dark)", fontsize=10)
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    return drawn.getvalue()


TAB = Tab("paro", "PAROAttention", "2506.16054", "paro", ("diffusers", "matplotlib"), build, captured)
