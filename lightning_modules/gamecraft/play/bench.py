"""`fulgurite bench gamecraft`: frames a second, where the time goes, how far from the arithmetic, how soon a key shows.

Axis legend: B batch, L caption token, C channel.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ....datamodules.files import write_json
from ....datamodules.gamecraft.actions import CLIP_FRAMES, Chord
from ....kernels.choice import takes_plan
from ....registry import COMMANDS, UserError
from ...device import pick_device
from ..pipeline import GameCraftPipeline, fast_dtype
from ..transformer import SIZES, GameCraftTransformer
from ..vae import SIZES as VAE_SIZES
from ..vae import GameplayVAE
from .attention_times import compare_attention, plan_for, show_attention
from .session import FPS, GameSession
from .world import PipelineWorld

SCHEMA_VERSION = 1
MODELS: Mapping[str, Mapping[str, Any]] = {
    "tiny": SIZES["tiny"],
    "student": SIZES["student"],
    # the width of Wan 2.1 (1.3B), with as many double to single blocks as HunyuanVideo: 1.30 billion parameters
    "1.3b": {
        **SIZES["student"],
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "num_layers": 8,
        "num_single_layers": 16,
        "rope_axes_dim": (16, 56, 56),
    },
}
CAPTION_TOKENS = 12
CHORDS = (Chord.of(w=1.0), Chord.of(w=0.8, left=0.5), Chord.of(d=0.7), Chord.of(right=1.0))
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
MATMUL_REPEATS = 10


@dataclass(frozen=True)
class Part:
    """One part's share of a chunk.

    Attributes:
        name: what it is.
        calls: calls a chunk.
        seconds: seconds a chunk.
        flops: floating-point operations a chunk (two for a multiply-add), None if not counted.
    """

    name: str
    calls: int
    seconds: float
    flops: float | None


@COMMANDS.register("bench gamecraft", paper="2506.17201")
def bench(
    weights: Path | None = None,
    model: str = "student",
    size: str = "64x112",
    steps: int | None = None,
    chunks: int = 20,
    play_s: float = 20.0,
    device: str = "auto",
    compile: bool | None = None,
    attention: str | None = None,
    plan: Path | None = None,
    density: float = 0.3,
    json: Path | None = None,
) -> int:
    """Sustained frames a second of the whole pipeline (keys to frames in memory), part by part, and the time from a key
    to the first frame that it shaped.

    The times of the parts are taken in a run of their own, since on a GPU the taking costs time. Operations are counted
    by torch's FlopCounterMode; the floor is what they would take at the speed of one large matrix product, measured
    here in the same number format. Keys go down at random moments of a game at 25 frames/s.

    Args:
        weights: folder of a pipeline; default: a model of random weights.
        model: size of the random one: tiny, student or 1.3b.
        size: rows x columns of the random one's frames, multiples of 16.
        steps: sampling steps a chunk; default: what the weights were made for, 8 for random ones.
        chunks: chunks timed.
        play_s: seconds of play; 0 leaves the game out.
        device: cpu, cuda or auto.
        compile: let torch compile the model; default: on a GPU.
        attention: also compare these backends, with commas, such as sdpa,paro,auto: attention's time, the chunk's.
        plan: file of the plan for those that take one; default: random orders and masks, good for times alone.
        density: kept blocks of the random plan / all blocks.
        json: file for the numbers.

    Raises:
        UserError: for a model, size or backend that there is not, or a plan that is not for these weights.
    """
    if chunks < 1 or play_s < 0 or (steps is not None and steps < 1):
        raise UserError(f"--chunks {chunks} --play_s {play_s} --steps {steps}: at least 1, 0 and 1")
    place = pick_device(device)
    on_gpu = place.type == "cuda"
    compiled = on_gpu if compile is None else compile
    pipeline, loading_s = _pipeline(weights, model, size, place)
    names = [name.strip() for name in attention.split(",") if name.strip()] if attention else []
    given = plan_for(pipeline, plan, density) if any([takes_plan(name) for name in names]) else None
    counted = _count_operations(pipeline, steps)

    def make_world() -> PipelineWorld:
        return PipelineWorld(pipeline, num_inference_steps=steps, seed=0, compile=compiled, graphs=on_gpu)

    executor = ThreadPoolExecutor(1)
    compared = executor.submit(
        compare_attention, pipeline, names, given, _picture(pipeline), chunks, make_world
    ).result()
    began = time.perf_counter()
    world = make_world()
    executor.submit(world.warm_up).result()
    warming_s = time.perf_counter() - began
    first_s = executor.submit(_first_frame, world).result()
    chunk_s = executor.submit(_chunk_times, world, chunks).result()
    parts = executor.submit(_parts, world, chunks, counted).result()
    matmul = executor.submit(_matmul_flops, place, pipeline.transformer.dtype).result()
    game = asyncio.run(_game(world, executor, play_s)) if play_s else None
    executor.shutdown()
    fps = CLIP_FRAMES * len(chunk_s) / sum(chunk_s)
    content = {
        "schema_version": SCHEMA_VERSION,
        "bench": "gamecraft",
        "model": str(weights) if weights else f"{model}, random weights",
        "device": torch.cuda.get_device_name(place) if on_gpu else f"{torch.get_num_threads()} CPU threads",
        "dtype": str(pipeline.transformer.dtype).removeprefix("torch."),
        "compiled": compiled,
        "cuda_graphs": on_gpu,
        "height": world.size[0],
        "width": world.size[1],
        "steps": steps or pipeline.config.num_inference_steps,
        "parameters": {
            "transformer": _num_parameters(pipeline.transformer),
            "vae_decoder": _num_parameters(pipeline.vae.decoder),
        },
        "load_s": loading_s,
        "warm_up_s": warming_s,
        "first_frame_s": first_s,
        "chunk_s": chunk_s,
        "frames_per_s": fps,
        "parts": [vars(part) for part in parts],
        "matmul_flops": matmul,
        "game": game,
        "attention": [vars(times) for times in compared],
        "torch": torch.__version__,
    }
    _show(content, parts)
    if compared:
        show_attention(compared)
    if json is not None:
        write_json(json, content)
    return 0


class RandomCaptions:
    """Stands for the caption encoder of a model whose weights are random, too: every caption has 12 tokens."""

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """States [B, 16, 384], mask [B, 16] and pooled vectors [B, 384]."""
        mask_BL = torch.arange(16).expand(len(captions), -1) < CAPTION_TOKENS
        return torch.randn(len(captions), 16, 384), mask_BL, torch.randn(len(captions), 384)


def _pipeline(weights: Path | None, model: str, size: str, place: torch.device) -> tuple[GameCraftPipeline, float]:
    """The pipeline on its device, and the seconds that reading (or drawing) its weights took."""
    began = time.perf_counter()
    if weights is not None:
        pipeline = GameCraftPipeline.from_pretrained(weights).to(place)
    else:
        found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size)
        if found is None or any(int(side) % 16 for side in found.groups()):
            raise UserError(f"--size {size}: rows x columns, multiples of 16, such as 64x112")
        if model not in MODELS:
            raise UserError(f"--model {model}: one of {', '.join(MODELS)}")
        torch.manual_seed(0)
        height, width = (int(side) for side in found.groups())
        with place:
            parts = (GameCraftTransformer.of_size("tiny", **MODELS[model]), GameplayVAE(**VAE_SIZES["student"]))
        transformer, vae = (part.to(fast_dtype()).eval().requires_grad_(False) for part in parts)
        captions: Any = RandomCaptions()
        pipeline = GameCraftPipeline(transformer, vae, captions, height=height, width=width)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, time.perf_counter() - began


def _num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _picture(pipeline: GameCraftPipeline) -> Image.Image:
    height, width = pipeline.config.height, pipeline.config.width
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def _first_frame(world: PipelineWorld) -> float:
    """Seconds from a start picture to the first frames that a key shaped, the model being warm."""
    picture, began = _picture(world.pipeline), time.perf_counter()
    world.next_chunk(world.start(picture), CHORDS[0])
    return time.perf_counter() - began


def _chunk_times(world: PipelineWorld, count: int) -> list[float]:
    """Seconds of each of `count` chunks in a row, frames in memory included."""
    _, state = world.next_chunk(world.start(_picture(world.pipeline)), CHORDS[0])
    times = []
    for number in range(count):
        began = time.perf_counter()
        _, state = world.next_chunk(state, CHORDS[number % len(CHORDS)])
        times.append(time.perf_counter() - began)
    return times


def _count_operations(pipeline: GameCraftPipeline, steps: int | None) -> dict[str, float]:
    """Floating-point operations a chunk of the network and of the decoder, by torch's counter, before any graph."""
    from torch.utils.flop_counter import FlopCounterMode

    world = PipelineWorld(pipeline, num_inference_steps=steps, seed=0)
    _, state = world.next_chunk(world.start(_picture(world.pipeline)), CHORDS[0])
    counts = {"network": 0.0, "decoder": 0.0}

    def counting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            with FlopCounterMode(display=False) as counter:
                result = forward(*positional, **named)
            counts[name] += counter.get_total_flops()
            return result

        return call

    with _Replaced(_modules(pipeline), counting):
        world.next_chunk(state, CHORDS[0])
    return counts


def _parts(world: PipelineWorld, count: int, counted: Mapping[str, float]) -> list[Part]:
    """Where a chunk's time goes: medians over chunks, each part waited for."""
    device = world.pipeline.transformer.device
    laps: dict[str, list[float]] = {"network": [], "decoder": []}

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timing(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            began = wait()
            result = forward(*positional, **named)
            laps[name].append(wait() - began)
            return result

        return call

    with _Replaced(_modules(world.pipeline), timing):
        _, state = world.next_chunk(world.start(_picture(world.pipeline)), CHORDS[0])
        for lap in laps.values():
            lap.clear()
        began = wait()
        for number in range(count):
            _, state = world.next_chunk(state, CHORDS[number % len(CHORDS)])
        whole_s = (wait() - began) / count
    steps = len(laps["network"]) // count
    network_s, decoder_s = sum(laps["network"]) / count, sum(laps["decoder"]) / count
    return [
        Part("network", steps, network_s, counted["network"]),
        Part("decoder", len(laps["decoder"]) // count, decoder_s, counted["decoder"]),
        Part("rest (camera rays, steps, copies)", 1, whole_s - network_s - decoder_s, None),
    ]


def _modules(pipeline: GameCraftPipeline) -> dict[str, nn.Module]:
    return {"network": pipeline.transformer, "decoder": pipeline.vae.decoder}


class _Replaced:
    """Modules' forwards wrapped while a block runs."""

    def __init__(self, modules: Mapping[str, nn.Module], wrap: Callable[[str, Any], Any]) -> None:
        self._modules, self._wrap = modules, wrap
        self._before: dict[str, Any] = {}

    def __enter__(self) -> None:
        for name, module in self._modules.items():
            self._before[name] = module.__dict__.get("forward")
            module.forward = self._wrap(name, module.forward)

    def __exit__(self, *error: object) -> None:
        for name, module in self._modules.items():
            if self._before[name] is None:
                del module.forward
            else:
                module.forward = self._before[name]


def _matmul_flops(place: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large square matrix product: the fastest of ten."""
    side = MATMUL_SIDE[place.type if place.type in MATMUL_SIDE else "cpu"]
    left, right = (torch.randn(side, side, device=place, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(MATMUL_REPEATS):
        began = time.perf_counter()
        torch.mm(left, right)
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        best_s = min(best_s, time.perf_counter() - began)
    return float(2 * side**3 / best_s)


async def _game(world: PipelineWorld, executor: ThreadPoolExecutor, play_s: float) -> dict[str, Any]:
    """A game at 25 frames/s in which a key goes down every now and then; its latencies, stalls and frames."""
    session = GameSession(world, executor, limits=world.pipeline.limits)
    rng = random.Random(0)
    shown = 0
    making_s: list[float] = []

    async def show() -> None:
        nonlocal shown
        async for frame in session.frames():
            shown += 1
            if frame.first:
                making_s.append(frame.generation_s)

    session.begin(_picture(world.pipeline))
    session.hold(["w"], 0)
    tasks = [asyncio.create_task(session.run()), asyncio.create_task(show())]
    while session.num_chunks < 2:
        await asyncio.sleep(0.01)
    session.latencies_s.clear()
    making_s.clear()
    stalls, before, began = session.num_stalls, shown, time.perf_counter()
    sequence = 0
    while time.perf_counter() - began < play_s:
        session.hold(["w", rng.choice(["left", "right", "a", "d"])], sequence := sequence + 1)
        await asyncio.sleep(0.1)
        session.hold(["w"], sequence := sequence + 1)
        await asyncio.sleep(rng.uniform(0.05, 0.6))
    seconds = time.perf_counter() - began
    latencies_s = sorted(session.latencies_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not latencies_s:
        raise UserError(f"--play_s {play_s}: no key was answered in this time; the model needs longer for a chunk")
    return {
        "seconds": seconds,
        "frames_per_s": (shown - before) / seconds,
        "stalls": session.num_stalls - stalls,
        "keys": len(latencies_s),
        "latency_median_s": statistics.median(latencies_s),
        "latency_95_s": _at_95(latencies_s),
        "making_median_s": statistics.median(making_s),
        "making_95_s": _at_95(making_s),
        "bound_s": CLIP_FRAMES / FPS + _at_95(making_s),
    }


def _at_95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def _show(content: Mapping[str, Any], parts: Sequence[Part]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    made = content["parameters"]
    console.print(
        f"{content['model']}: network {made['transformer'] / 1e6:.1f} M, decoder {made['vae_decoder'] / 1e6:.1f} M; "
        f"{content['height']}x{content['width']}, {content['steps']} steps; {content['device']}, {content['dtype']}"
        f"{', compiled' if content['compiled'] else ''}{', CUDA graphs' if content['cuda_graphs'] else ''}",
        markup=False,
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("part of a chunk")
    for column in ("calls", "ms", "share", "GFLOP", "floor, ms", "time / floor"):
        table.add_column(column, justify="right")
    whole_s = sum(part.seconds for part in parts)
    flops = sum(part.flops or 0.0 for part in parts)
    for part in (*parts, Part("all", 1, whole_s, flops)):
        row = [part.name, str(part.calls), f"{part.seconds * 1e3:.1f}", f"{part.seconds / whole_s:.0%}"]
        if part.flops:
            floor_s = part.flops / content["matmul_flops"]
            row += [f"{part.flops / 1e9:.1f}", f"{floor_s * 1e3:.2f}", f"{part.seconds / floor_s:.1f}"]
        table.add_row(*row)
    console.print(table)
    console.print(f"floor: one large matrix product runs at {content['matmul_flops'] / 1e12:.2f} TFLOP/s here")
    times_ms = sorted(s * 1e3 for s in content["chunk_s"])
    console.print(
        f"sustained {content['frames_per_s']:.1f} frames/s; a chunk of {CLIP_FRAMES} takes "
        f"{statistics.median(times_ms):.1f} ms (median; {times_ms[0]:.1f} to {times_ms[-1]:.1f})"
    )
    console.print(
        f"first frame {content['first_frame_s']:.2f} s after the start; "
        f"weights loaded in {content['load_s']:.1f} s, warm-up {content['warm_up_s']:.1f} s"
    )
    if game := content["game"]:
        console.print(
            f"a game of {game['seconds']:.0f} s: {game['frames_per_s']:.1f} frames/s, {game['stalls']} stalls; "
            f"key to first affected frame {game['latency_median_s'] * 1e3:.0f} ms (median of {game['keys']}), "
            f"{game['latency_95_s'] * 1e3:.0f} ms (95th);\n"
            f"in the game a chunk took {game['making_median_s'] * 1e3:.0f} ms to make ({game['making_95_s'] * 1e3:.0f} "
            f"95th): one chunk shown and one made are {game['bound_s'] * 1e3:.0f} ms (95th)"
        )
