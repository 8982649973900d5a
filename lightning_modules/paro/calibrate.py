"""`fulgurite paro calibrate`: a pipeline in, a plan out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from ...registry import COMMANDS, UserError


@COMMANDS.register("paro calibrate", paper="2506.16054")
def calibrate(
    model: Path,
    out: Path,
    prompts: Path | None = None,
    density: float | None = None,
    recall: float | None = None,
    order: str = "paro",
    captures: Path | None = None,
    num_bins: int = 4,
    num_steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    guidance_scale: float | None = None,
    alpha: float = 0.5,
    eps: float | None = None,
    sigma: float = 0.9,
    empty_below: float = 0.01,
    seed: int = 0,
) -> None:
    """Capture attention of a few films and write a plan: an axis order for every head, masks for every timestep bin.

    Args:
        model: folder of a pipeline: released GameCraft weights, or one that diffusers saved.
        out: the plan's file, such as plan.safetensors.
        prompts: see `paro capture`.
        density: share of 64x64 blocks that is kept, text included, over the heads of a layer; default 0.3.
        recall: instead, the share of the attention that every head keeps.
        order: how orders are chosen: paro (the paper's metric, its sign corrected), held (what the fullest blocks
            hold), none, random, single.
        captures: folder of the captures; default: beside the plan. They stay, and are used again.
        num_bins: see `paro capture`.
        num_steps: sampling steps; default: the pipeline's.
        height: see `paro capture`.
        width: likewise.
        num_frames: likewise.
        guidance_scale: likewise.
        alpha: weight of sparsity in the metric, against incoherence.
        eps: entries of the map below it count as small; default 17.8 / N.
        sigma: share of small entries that makes a block sparse.
        empty_below: a head whose picture tokens send less than this share to picture tokens keeps text alone.
        seed: of random orders.
    """
    if density is not None and recall is not None:
        raise UserError("a plan has a target density or a target recall, not both")
    kind, value = ("recall", recall) if recall is not None else ("density", 0.3 if density is None else density)
    if not 0 < value <= 1:
        raise UserError(f"--{kind} is a share above 0 and up to 1, not {value:g}")
    import torch

    from ...datamodules.paro.captures import CaptureStore
    from ...kernels.paro.calibration import Metric
    from .capture import capture
    from .planning import Captures, Target, arm_orders, build_plans, measure_layer

    target = Target(kind, value)
    metric = Metric(alpha, eps, sigma)
    arm_orders(order, torch.zeros(3, 1, 1, 1), alpha, seed)  # an arm that does not exist is told before the work
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = captures or out.with_suffix(".captures")
    capture(model, folder, prompts, num_bins, num_steps, height, width, num_frames, guidance_scale)
    store = CaptureStore(folder)

    def of(layer: int) -> Captures:
        handles = store.select(layer, "calibrate")
        return [(store.timestep(handle), partial(store.load, handle, device)) for handle in handles]

    layers = range(store.meta.num_layers)
    metrics_3LHO = torch.stack([measure_layer(of(layer), metric) for layer in layers], 1)
    num_films = sum(film.split == "calibrate" for film in store.meta.films)
    made_with = f"{num_films} films, steps {', '.join(map(str, store.meta.steps))} of {len(store.meta.timesteps)}"
    plans = build_plans(
        store.meta, ((layer, of(layer)) for layer in layers), metrics_3LHO, [order], [target], metric, empty_below,
        seed, made_with,
    )  # fmt: skip
    plan = plans[(order, target.name)]
    plan.save(out)
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    screen.print(
        f"{out}: density {float(plan.density.mean()):.3f}, recall {float(plan.recall.mean()):.3f} (worst block of "
        f"queries {float(plan.recall_worst.min()):.3f}), {len(plan.meta.edges) + 1} timestep bins\n"
        f"fulgurite paro show {out} --captures {folder}   draws it"
    )
