"""`fulgurite bench dnd`: the generator's speed beside the published layers', and the fine-tuning that it replaces.

Axis legend: N prompts, L text tokens, C encoder channels, T H W weight tokens.
"""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError
from .fast_hyperconv import lay_out
from .hyperconv import HyperConvGenerator

SCHEMA_VERSION = 1
Shapes = list[list[int]]
CASCADES: dict[str, tuple[Shapes, int]] = {
    "qwen2.5-0.5b": (
        [[128, 384, 384], [128, 200, 300], [128, 100, 256], [256, 50, 200], [512, 50, 200], [1024, 25, 200],
         [1024, 10, 200], [2048, 10, 200], [4296, 10, 130]], 9,
    ),
    "smollm2-135m": ([[32, 64, 384], [32, 32, 256], [128, 16, 200], [512, 10, 194], [1590, 10, 194]], 3),
}  # fmt: skip
MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
WARM_UP = 3
ROWS, TOKENS = 16, 256  # of a step of fine-tuning


@COMMANDS.register("bench dnd", paper="2506.16406")
def bench(
    cascade: str = "qwen2.5-0.5b",
    repeats: int = 20,
    batch_size: int = 1,
    fine_tuning_steps: int = 0,
    checkpoint: Path | None = None,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Time a cascade's forward pass and training step in bf16: ours, and the published layers in plain PyTorch.

    Both have the same random weights; cuDNN's autotuner is on for both. Errors are relative L2 distances. The floor is
    the convolutions' operations at the rate of one large bf16 matrix product on the same device.

    Args:
        cascade: qwen2.5-0.5b (the authors', 1.11 billion parameters) or smollm2-135m (that of dnd/gpu).
        repeats: timed calls; medians are told.
        batch_size: conditions at once.
        fine_tuning_steps: steps of LoRA fine-tuning of a model of Qwen2.5-0.5B's shape (random weights, 16 rows of 256
            tokens) to time beside it; 0 leaves it out.
        checkpoint: a trained generator's folder, whose encoding, decoding and detokenising are timed too.
        seed: of weights and conditions.
        json: file for the numbers.

    Raises:
        UserError: for an unknown cascade, or counts below 1.
    """
    if cascade not in CASCADES:
        raise UserError(f"--cascade {cascade}: one of {', '.join(CASCADES)}")
    if repeats < 1 or batch_size < 1 or fine_tuning_steps < 0:
        raise UserError(f"--repeats {repeats} --batch_size {batch_size}: at least 1; --fine_tuning_steps at least 0")
    if checkpoint is not None and not (checkpoint / "generator.json").is_file():
        raise UserError(f"{checkpoint}: no trained generator here (generator.json is missing)")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(highlight=False, soft_wrap=True)
    shapes, kernel = CASCADES[cascade]
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "cascade": cascade, "batch_size": batch_size, "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "matmul_flops": matmul_flops(device),
        **compare_cascades(shapes, kernel, batch_size, repeats, device, seed),
    }  # fmt: skip
    console.print(_table(found))
    if fine_tuning_steps:
        took = fine_tuning_s(fine_tuning_steps, device, seed)
        ratio = took / found["sides"]["ours"]["forward_s"]
        found["fine_tuning"] = {"steps": fine_tuning_steps, "seconds": took, "times_the_forward_pass": ratio}
        console.print(
            f"{fine_tuning_steps} steps of fine-tuning take {took:.1f} s: {ratio:,.0f} forward passes of ours"
        )
    if checkpoint is not None:
        found["adapt_s"] = adapt_parts(checkpoint, repeats, device)
        console.print("adapt: " + ", ".join(f"{name} {s * 1e3:.1f} ms" for name, s in found["adapt_s"].items()))
    if json:
        write_json(json, found)


def compare_cascades(
    shapes: Shapes, kernel: int, batch_size: int, repeats: int, device: torch.device, seed: int
) -> dict[str, Any]:
    """Both sides' seconds and bytes, their distance from each other and from fp32, and what there is to compute."""
    torch.manual_seed(seed)
    with device:
        network = HyperConvGenerator(shapes, kernel)
        condition = torch.randn(batch_size, *shapes[0])
        target = torch.randn(batch_size, *shapes[-1])
    plain = nn.Sequential(*network.layers)  # the published order, bf16 to the last layer
    fast = lay_out(copy.deepcopy(network))
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        with torch.no_grad():
            with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
                exact = plain(condition)
            made = {name: _in_bf16(side, condition).float() for name, side in (("plain", plain), ("ours", fast))}
        sides = {name: _timed(side, condition, target, repeats) for name, side in (("plain", plain), ("ours", fast))}
    finally:
        torch.backends.cudnn.benchmark = benchmark
    distance = {name: _distance(out, exact) for name, out in made.items()}
    return {
        "parameters": network.num_parameters,
        "forward_flops": 2 * network.num_macs * batch_size,
        "sides": sides,
        "error_to_fp32": distance,
        "ours_to_plain": _distance(made["ours"], made["plain"]),
    }


def _timed(network: nn.Module, condition: Tensor, target: Tensor, repeats: int) -> dict[str, float]:
    device = condition.device
    with torch.no_grad():
        forward_s = median_s(functools.partial(_in_bf16, network, condition), repeats, device)
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=on_gpu)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        loss = (_in_bf16(network, condition).float() - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step_s = median_s(step, repeats, device)
    update_s = 0.0
    if on_gpu:
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        update_s = median_s(optimizer.step, repeats, device)
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return {"forward_s": forward_s, "step_s": step_s, "update_s": update_s, "peak_bytes": float(peak)}


def _in_bf16(network: nn.Module, condition: Tensor) -> Tensor:
    with torch.autocast(condition.device.type, torch.bfloat16):
        made: Tensor = network(condition)
    return made


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def median_s(call: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, on a GPU by events."""
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def matmul_flops(device: torch.device) -> float:
    """Operations a second of one large bf16 matrix product on random data."""
    side = MATMUL_SIDE[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / median_s(lambda: left @ right, 10, device)


def fine_tuning_s(steps: int, device: torch.device, seed: int) -> float:
    """Seconds of that many LoRA steps (rank 8, AdamW, 16 rows of 256 tokens) of a model of Qwen2.5-0.5B's shape."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=151936, tie_word_embeddings=True,
    )  # fmt: skip
    with device:
        base: Any = torch.nn.Module.to(Qwen2ForCausalLM(config), torch.bfloat16)
    model: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")
    ids = torch.randint(0, config.vocab_size, (ROWS, TOKENS), device=device)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return time.perf_counter() - began


def adapt_parts(checkpoint: Path, repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of encoding N prompts, decoding, and detokenising, with a trained generator."""
    from .generator import TrainedGenerator

    trained = TrainedGenerator.load(checkpoint).to(device)
    encoder = trained.encoder()
    prompts = [f"Is the sentence number {i} of this text true?" for i in range(int(trained.meta["num_prompts"]))]
    condition_NLC = encoder.encode(prompts)[0].to(device)
    with torch.no_grad():
        tokens_THW = trained.network.eval()(condition_NLC[None].float())[0]
        return {
            "encode": median_s(lambda: encoder.encode(prompts), repeats, device),
            "decode": median_s(lambda: trained.network(condition_NLC[None].float()), repeats, device),
            "detokenise": median_s(lambda: trained.adapter(tokens_THW), repeats, device),
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _table(found: dict[str, Any]) -> Table:
    size = f"{found['parameters'] / 1e6:,.0f} M parameters, batch {found['batch_size']}"
    table = Table(title=f"{found['cascade']}: {size}, {found['device']}", title_justify="left")
    for column in ("", "forward, ms", "step, ms", "of it update", "share of peak", "peak GB", "error to fp32"):
        table.add_column(column, justify="left" if not column else "right")
    floor_s = found["forward_flops"] / found["matmul_flops"]
    for name, side in found["sides"].items():
        times = [f"{side[key] * 1e3:.2f}" for key in ("forward_s", "step_s", "update_s")]
        share, peak = f"{floor_s / side['forward_s']:.0%}", f"{side['peak_bytes'] / 1e9:.1f}"
        table.add_row(name, *times, share, peak, f"{found['error_to_fp32'][name]:.2e}")
    plain, ours = found["sides"]["plain"], found["sides"]["ours"]
    forward, step = (plain[key] / ours[key] for key in ("forward_s", "step_s"))
    table.caption = (
        f"ours is {forward:.2f} times as fast forward and {step:.2f} in a step; {found['ours_to_plain']:.1e} from "
        f"plain; floor {floor_s * 1e3:.2f} ms forward at {found['matmul_flops'] / 1e12:.0f} TFLOP/s"
    )
    if not math.isfinite(found["ours_to_plain"]):
        table.caption += " (not finite: these are no results)"
    return table
