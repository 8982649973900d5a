"""`fulgurite bench attention-models`: whole denoising steps of published models, dense against `paro`."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...registry import COMMANDS, UserError
from ..adapters.serve import serve
from ..api import AttentionBackend, attention, make_backend
from ..paro.auto import AutoAttention
from ..place import Place
from .contest import measured
from .front import cell, names_in, shares_in, write_numbers, write_whole
from .models import SPECS, DenseAttention, ModelSpec, attention_flops, attention_inputs, build, make_step
from .random_plan import random_plan

DENSE = ("cudnn", "flash", "sdpa")
ROUNDS, BUDGET_S = 5, 30.0  # timed steps of a row at most; at least 2 are
PAPER = "the paper, end to end: CogVideoX 2.72 times (density 0.3, INT8), Flux 1.94 times (0.75, INT4)"
COLUMNS = ("model", "who", "density", "step_ms", "x_cudnn", "x_dense", "attention_ms", "share", "peak_gb", "distance")


@COMMANDS.register("bench attention-models", paper="2506.16054")
def bench(
    models: str = "cogvideox,wan480,flux",
    densities: str = "0.5,0.3,0.2",
    dense: str = "cudnn,flash",
    seed: int = 0,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time of one guided denoising step of published transformers at their published sizes, with random weights in
    bf16, on one GPU: dense attention against `paro`, and for Flux `auto`.

    Plans are random: each head has masks and an order of its own. A step is what the model's pipeline does: CogVideoX
    and Wan with and without the prompt, Flux.1-dev once. attention_ms is that of one layer's call, alone on inputs of
    its shape, times the calls of a step; share is its part of the step. peak_gb is that of the steps alone: weights,
    inputs and what a step holds. distance is the relative L2 distance of the
    step's output from the first dense row's: with random weights it says that both computed, not how well. x_dense is
    against the faster dense row. Each model runs in a process of its own, and the JSON is written after each. Wan's
    weights alone take 29 GB of the GPU.

    Args:
        models: names among cogvideox (5B, 49 frames of 480x720), wan480 and wan720 (2.1 14B, 81 frames of 480x832 or
            720x1280), flux (Flux.1-dev, 1024x1024), with commas.
        densities: shares of kept blocks.
        dense: dense attention to compare with: cudnn, flash, sdpa (what PyTorch takes by itself).
        seed: of weights, inputs and plans.
        json: file for the numbers.
        plot: PNG to draw.

    Raises:
        UserError: for an unknown name, a density that is no share, or without a CUDA GPU.
    """
    chosen = names_in("--models", models, tuple(SPECS))
    peers = names_in("--dense", dense, DENSE)
    shares = shares_in(densities)
    if not torch.cuda.is_available():
        raise UserError(
            "bench attention-models measures GPUs: PyTorch sees no CUDA GPU here\nRun it on a machine with one."
        )
    device = torch.cuda.get_device_name()
    print(" ".join(f"{c:>12}" for c in COLUMNS), flush=True)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name in chosen:
        # a pool of one for each: whatever a model does to its process, the others run
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                found, wrong = pool.submit(measure_model, name, SPECS[name], peers, shares, seed, "cuda").result()
            except BrokenProcessPool:
                found, wrong = [], {name: "its process ended without a word (out of memory?)"}
            except Exception as error:  # of any library: the other models still run
                found, wrong = [], {name: f"{type(error).__name__}: {_first_line(error)}"}
        rows += found
        failed |= wrong
        if json:
            write_numbers(json, "attention-models", seed, rows, device=device, failed=failed)
    for label, reason in failed.items():
        print(f"{label} did not run: {reason}")
    print(PAPER)
    if plot and rows:
        _draw(rows, device, plot)
    return 0


def measure_model(
    name: str, spec: ModelSpec, dense: Sequence[str], densities: Sequence[float], seed: int, device: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of one model, printed as they come, and what did not run, with the reason.

    Args:
        name: for people.
        spec: the model.
        dense: names of `DenseAttention`.
        densities: of the plans.
        seed: of weights, inputs and plans.
        device: of torch.
    """
    place, dtype = torch.device(device), torch.bfloat16
    torch.manual_seed(seed)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    try:
        model = build(spec, place, dtype)
        step = make_step(spec, model, seed)
    except RuntimeError as reason:
        return [], {name: _first_line(reason)}

    def inputs() -> list[Tensor]:
        return attention_inputs(spec, place, dtype, seed)

    first: Tensor | None = None
    for label, density, make in _contestants(spec, dense, densities, seed, place):
        try:
            backend = make()
            row, out = _row(spec, model, step, backend, inputs, place)
        except (RuntimeError, ValueError) as reason:
            failed[f"{label} at {density} on {name}"] = _first_line(reason)
            continue
        first = out if first is None else first
        base = {r["who"]: r["step_ms"] for r in rows if r["who"] in DENSE}
        best = min(base.values(), default=None) if label not in DENSE else None
        cudnn = row["step_ms"] if label == "cudnn" else base.get("cudnn")
        plan = getattr(backend, "plan", None)
        kept = density if plan is None else float(plan.density.mean())  # text and the diagonal are always kept
        distance = float((out - first).norm() / first.norm())
        row = {
            "model": name, "who": label, "density": round(kept, 3), **row,
            "x_cudnn": None if cudnn is None else cudnn / row["step_ms"],
            "x_dense": None if best is None else best / row["step_ms"],
            "tflops": attention_flops(spec, kept) / row["attention_ms"] / 1e9,
            "distance": distance if math.isfinite(distance) else None,
        }  # fmt: skip
        rows.append(row)
        print(" ".join(f"{cell(row[c]):>12}" for c in COLUMNS) + "  " + row["chose"], flush=True)
    return rows, failed


def _contestants(
    spec: ModelSpec, dense: Sequence[str], densities: Sequence[float], seed: int, device: torch.device
) -> list[tuple[str, float, Callable[[], AttentionBackend]]]:
    """Label, density and what makes the backend: dense ones, `paro`, and for a short sequence's model `auto`."""

    def planned(label: str, density: float) -> AttentionBackend:
        plan = random_plan(spec.layout, spec.layers, spec.heads, density, seed, device)
        return make_backend(label, plan=plan)

    labels = ("paro", "auto") if spec.guidance == "embedded" else ("paro",)
    return [
        *((kernel, 1.0, lambda kernel=kernel: DenseAttention(kernel)) for kernel in dense),
        *((who, d, lambda who=who, d=d: planned(who, d)) for who in labels for d in densities),
    ]


def _row(
    spec: ModelSpec, model: Any, step: Callable[[], Tensor], backend: AttentionBackend,
    inputs: Callable[[], Sequence[Tensor]], device: torch.device,
) -> tuple[dict[str, Any], Tensor]:  # fmt: skip
    """Times, memory and output of steps with this attention; `inputs` are made afterwards, for a layer's call alone."""
    on_gpu = device.type == "cuda"
    chose = ""
    with serve(model, backend):
        out = step().float()  # warms up, too
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        steps_ms: list[float] = []
        while len(steps_ms) < ROUNDS and (len(steps_ms) < 2 or sum(steps_ms) < 1e3 * BUDGET_S):
            steps_ms.append(_timed(step, device))
        peak = torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else None
        if isinstance(place := getattr(backend, "place", None), Place):
            place.layer = 0
        qkv = inputs()
        if isinstance(backend, AutoAttention):
            chose = backend.choose(qkv[0])
        call_ms = _clock(lambda: attention(*qkv, backend=backend), device)
    step_ms = statistics.median(steps_ms)
    attention_ms = call_ms * spec.layers * spec.passes
    return {
        "step_ms": step_ms, "steps_ms": steps_ms, "attention_ms": attention_ms, "share": attention_ms / step_ms,
        "peak_gb": peak, "chose": chose,
    }, out  # fmt: skip


def _timed(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call: by events on a GPU, else by the clock."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return (time.perf_counter() - began) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))


def _clock(run: Callable[[], object], device: torch.device) -> float:
    """Median of many calls, in ms."""
    if device.type == "cuda":
        return measured(run).median
    return statistics.median(_timed(run, device) for _ in range(3))


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)


def _draw(rows: Sequence[Mapping[str, Any]], device: str, path: Path) -> None:
    """A bar a row: attention below, the rest of the step above; a panel a model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.5), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        here = [row for row in rows if row["model"] == name]
        labels = [row["who"] + ("" if row["who"] in DENSE else f" {row['density']:g}") for row in here]
        inner = [row["attention_ms"] for row in here]
        axis.bar(labels, inner, label="attention")
        rest = [max(0.0, row["step_ms"] - spent) for row, spent in zip(here, inner, strict=True)]
        axis.bar(labels, rest, bottom=inner, label="the rest")
        axis.set(title=name, ylabel="one step, ms")
        axis.tick_params(axis="x", rotation=60)
        axis.legend(fontsize=7)
    figure.suptitle(device)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    plt.close(figure)
    write_whole(path, drawn.getvalue())
