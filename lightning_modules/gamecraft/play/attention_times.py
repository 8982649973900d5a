"""The attention of one network by several backends: its own time, and the whole chunk's, in one process.

Axis legend: B batch, H head, N token, D channel.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ....datamodules.gamecraft.actions import Chord
from ....kernels.adapters.follow import attention_layers
from ....kernels.api import AttentionBackend, attention
from ....kernels.bench.contest import measured
from ....kernels.bench.random_plan import random_plan
from ....kernels.choice import takes_plan
from ....kernels.masks import Mask
from ....kernels.paro.orders import Layout
from ....kernels.paro.plan import Plan
from ....kernels.place import Place
from ....kernels.sdpa import SdpaAttention
from ....registry import UserError
from ..pipeline import GameCraftPipeline
from ..vae import CLIP_LATENTS
from .world import PipelineWorld

CPU_REPEATS = 5
WALK = Chord.of(w=1.0)


@dataclass(frozen=True)
class AttentionTimes:
    """Of one backend.

    Attributes:
        name: the backend's.
        tokens: length of the sequence.
        density: kept blocks / all blocks of the plan; 1 without one.
        attention_ms: all layers' attention in all steps of a chunk.
        chunk_ms: the whole chunk, frames in memory included; median.
        chunks_ms: of each chunk.
    """

    name: str
    tokens: int
    density: float
    attention_ms: float
    chunk_ms: float
    chunks_ms: list[float]


def plan_for(pipeline: GameCraftPipeline, plan: Path | None, density: float) -> Plan:
    """The plan in a file, or a random one for a clip that follows a clip at this pipeline's size.

    Raises:
        UserError: for a file that is no plan, or a density that is no share.
    """
    if plan is not None:
        return Plan.load(plan)
    if not 0 < density <= 1:
        raise UserError(f"--density {density}: a number above 0, at most 1")
    sides = (pipeline.config.height // 16, pipeline.config.width // 16)
    layout = Layout((2 * CLIP_LATENTS, *sides), pipeline.captions([""])[0].shape[1], "suffix")
    layers: Any = attention_layers(pipeline.transformer)
    return random_plan(layout, len(layers), pipeline.transformer.config.num_attention_heads, density)


def compare_attention(
    pipeline: GameCraftPipeline,
    names: Sequence[str],
    plan: Plan | None,
    picture: Any,
    chunks: int,
    make_world: Callable[[], PipelineWorld],
) -> list[AttentionTimes]:
    """The times of each backend; afterwards the pipeline is as it was, with the default attention.

    Args:
        pipeline: on its device.
        names: of backends.
        plan: for those that take one.
        picture: to start from.
        chunks: chunks timed.
        make_world: makes a world of the pipeline anew, with its compiling and its graphs.

    Raises:
        UserError: for a backend that does not exist, or a plan that is not for these weights.
    """
    found = []
    for name in names:
        planned = takes_plan(name)
        pipeline.set_attention(name, plan if planned else None)
        calls, steps = _record(pipeline, picture, make_world)
        attention_ms = steps * _time(calls, pipeline.transformer.device)
        torch.compiler.reset()  # of one function torch.compile keeps only so many forms
        world = make_world()
        world.warm_up()
        _, state = world.next_chunk(world.start(picture), WALK)
        chunks_ms = []
        for _ in range(chunks):
            began = time.perf_counter()
            _, state = world.next_chunk(state, WALK)
            chunks_ms.append((time.perf_counter() - began) * 1e3)
        _restore(pipeline)
        density = float(plan.density.mean()) if planned and plan is not None else 1.0
        found.append(
            AttentionTimes(
                name, calls[0].q_BHND.shape[2], density, attention_ms, statistics.median(chunks_ms), chunks_ms
            )
        )
    pipeline.set_attention(None)
    if found:
        torch.compiler.reset()
    return found


def show_attention(times: Sequence[AttentionTimes]) -> None:
    """A table: each backend's attention and chunk, and how many times faster than the first."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("backend")
    for column in ("tokens", "density", "attention ms", "share", "chunk ms", "x attention", "x chunk"):
        table.add_column(column, justify="right")
    first = times[0]
    for each in times:
        table.add_row(
            each.name, str(each.tokens), f"{each.density:.2f}", f"{each.attention_ms:.2f}",
            f"{each.attention_ms / each.chunk_ms:.0%}", f"{each.chunk_ms:.1f}",
            f"{first.attention_ms / each.attention_ms:.2f}", f"{first.chunk_ms / each.chunk_ms:.2f}",
        )  # fmt: skip
    Console(highlight=False, soft_wrap=True).print(table)


@dataclass(frozen=True)
class _Call:
    """One layer's call of attention, as the network made it."""

    layer: int
    q_BHND: Tensor
    k_BHND: Tensor
    v_BHND: Tensor
    mask: Mask
    backend: AttentionBackend


class _Recording(SdpaAttention):
    """Stands before a layer's backend and notes the last call."""

    def __init__(self, layer: int, inner: AttentionBackend, noted: dict[int, _Call]) -> None:
        self.layer, self.inner, self.noted = layer, inner, noted

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        self.noted[self.layer] = _Call(self.layer, q_BHND, k_BHMD, v_BHME, mask, self.inner)
        return super().__call__(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)


def _record(
    pipeline: GameCraftPipeline, picture: Any, make_world: Callable[[], PipelineWorld]
) -> tuple[list[_Call], int]:
    """The calls of the last step of a chunk that follows a chunk, and the network's calls a chunk; all uncompiled."""
    layers: Any = attention_layers(pipeline.transformer)
    processors = [layer.processor for layer in layers.values()]
    noted: dict[int, _Call] = {}
    backends = [processor.backend for processor in processors]
    world = make_world()
    _restore(pipeline)
    count = 0

    def counted(*unused: Any) -> None:
        nonlocal count
        count += 1

    for number, processor in enumerate(processors):
        processor.backend = _Recording(number, backends[number], noted)
    _, state = world.next_chunk(world.start(picture), WALK)
    handle = pipeline.transformer.register_forward_hook(counted)
    world.next_chunk(state, WALK)
    handle.remove()
    for processor, backend in zip(processors, backends, strict=True):
        processor.backend = backend
    return [noted[number] for number in range(len(processors))], count


@torch.no_grad()
def _time(calls: Sequence[_Call], device: torch.device) -> float:
    """Milliseconds of all layers' attention in one step: each layer's call, one after the other, nothing between."""

    def run() -> None:
        for call in calls:
            place = getattr(call.backend, "place", None)
            if isinstance(place, Place):
                place.layer = call.layer
            attention(call.q_BHND, call.k_BHND, call.v_BHND, mask=call.mask, backend=call.backend)

    if device.type == "cuda":
        return measured(run).median
    run()
    laps = []
    for _ in range(CPU_REPEATS):
        began = time.perf_counter()
        run()
        laps.append((time.perf_counter() - began) * 1e3)
    return statistics.median(laps)


def _restore(pipeline: GameCraftPipeline) -> None:
    """Take off what a world put before the modules' own forwards."""
    for module in (pipeline.transformer, pipeline.vae.decoder):
        module.__dict__.pop("forward", None)
