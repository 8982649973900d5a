"""`fulgurite bench attention`: every backend on the same tensors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...registry import COMMANDS, UserError
from . import peers
from .contest import BLOCK, SHAPES, Shape, band_mask, error, measured, random_mask
from .front import cell, names_in, shares_in, write_numbers, write_whole

DENSE = {"cudnn": peers.cudnn, "flash": peers.flash, "flash4": peers.flash4}
SPARSE = {
    "flash4_128": (peers.flash4_blocks, 128), "flash4_64": (peers.flash4_blocks, 64),
    "flex128": (peers.flex, 128), "flex64": (peers.flex, 64),
}  # fmt: skip
OURS = ("paro", "paro_bf16", "int4")
COLUMNS = ("shape", "mask", "density", "who", "kernel_ms", "all_in_ms", "x_cudnn", "tflops", "error")


@COMMANDS.register("bench attention", paper="2506.16054")
def bench(
    shapes: str = "cogvideox,wan480,wan720,flux",
    peers: str = "cudnn,flash,flash4,flash4_128,flash4_64,flex128,flex64,paro,paro_bf16",
    masks: str = "random,band",
    densities: str = "0.5,0.3,0.2",
    seed: int = 0,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time and error of attention backends on one GPU: the kernel alone, and all-in (order, rounding, lists of blocks,
    order undone), dense and under block masks.

    Masks keep 64x64 blocks, other ones for every head; `flex128` and `flash4_128` are timed on masks that keep blocks
    of 128 at the same density, their best case, and on the mask of 64 coarsened to 128 (`flex128 64>128`). Times are
    medians by CUDA events; ratios are to dense cuDNN in the same run, all-in. Errors are relative L2 distances from
    float32 attention under the contestant's own mask. A contestant that cannot run is named with the reason.

    Args:
        shapes: names among cogvideox, wan480, wan720, flux, small, with commas.
        peers: contestants: cudnn, flash, flash4 (dense), flash4_128, flash4_64, flex128, flex64, paro, paro_bf16 (its
            control), int4 (not by default: slow on Hopper). flash4 is FlashAttention-4, of the package flash-attn-4.
        masks: random, band.
        densities: shares of kept blocks.
        seed: of inputs, orders and masks.
        json: file for the numbers.
        plot: PNG to draw.

    Raises:
        UserError: for an unknown name, a density that is no share, or without a CUDA GPU.
    """
    chosen = names_in("--shapes", shapes, tuple(SHAPES))
    who = names_in("--peers", peers, (*DENSE, *SPARSE, *OURS))
    kinds = names_in("--masks", masks, ("random", "band"))
    shares = shares_in(densities)
    if not torch.cuda.is_available():
        raise UserError("bench attention measures GPUs: PyTorch sees no CUDA GPU here\nRun it on a machine with one.")
    device = torch.device("cuda", torch.cuda.current_device())
    print(" ".join(f"{c:>9}" for c in COLUMNS), flush=True)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name in chosen:
        base: float | None = None
        for row in _rows(name, SHAPES[name], who, kinds, shares, seed, device, failed):
            base = row["all_in_ms"] if row["who"] == "cudnn" else base
            row["x_cudnn"] = None if base is None else base / row["all_in_ms"]
            rows.append(row)
            print(" ".join(f"{cell(row[c]):>9}" for c in COLUMNS) + "  " + cell(row["parts"]), flush=True)
    for label, reason in failed.items():
        print(f"{label} did not run: {reason}")
    if json:
        write_numbers(json, "attention", seed, rows, device=torch.cuda.get_device_name(device), failed=failed)
    if plot and rows:
        _draw(rows, torch.cuda.get_device_name(device), plot)
    return 0


def _rows(
    name: str,
    shape: Shape,
    who: list[str],
    kinds: list[str],
    shares: list[float],
    seed: int,
    device: torch.device,
    failed: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """The numbers of a shape, a contestant at a time."""
    generator = torch.Generator(device=device).manual_seed(seed)
    size = (1, shape.heads, shape.tokens, shape.width)
    q, k, v = (torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(3))
    table = shape.layout.table(device).int()
    orders = torch.arange(shape.heads, device=device) % len(table)
    perm = table[orders].contiguous()
    plain = torch.arange(shape.tokens, dtype=torch.int32, device=device).expand(shape.heads, -1).contiguous()
    blocks = -(-shape.tokens // BLOCK)
    ours: dict[str, Any] = {
        "paro": lambda task: peers.paro(task, peers.native.VARIANTS[shape.width]),
        "paro_bf16": lambda task: peers.paro(task, peers.native.CONTROLS[shape.width]),
        "int4": peers.int4,
    }

    def contest(label: str, make: Any, mask: str, density: float, keep: Tensor | None, order: Tensor) -> Any:
        try:
            entrant = make(peers.Task(q, k, v, order, keep))
            out = entrant.all_in()
            kernel, all_in = measured(entrant.kernel), measured(entrant.all_in)
            parts = {part: measured(run) for part, run in entrant.parts.items()}
        except (RuntimeError, ImportError, TypeError, ValueError) as reason:  # another library's own refusals too
            failed[f"{label} on {name}"] = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
            return None
        ran = 1.0 if entrant.mask is None else float(entrant.mask.keep.float().mean())
        return {
            "shape": name, "mask": mask, "density": density, "who": label,
            "kernel_ms": kernel.median, "all_in_ms": all_in.median, "x_cudnn": None,
            "tflops": shape.flops(ran) / kernel.median / 1e9, "ran_density": ran,
            "error": error(out, q, k, v, entrant.mask, order),
            "kernel_spread_ms": [kernel.low, kernel.high], "all_in_spread_ms": [all_in.low, all_in.high],
            "parts": {part: time.median for part, time in parts.items()},
        }  # fmt: skip

    def entries(mask: str, density: float) -> Iterator[Any]:
        if mask == "dense":
            yield from (contest(p, run, mask, 1.0, None, plain) for p, run in DENSE.items() if p in who)  # cuDNN first
            keep = None
        else:
            keep = _mask(mask, shape.heads, blocks, density, seed, device)
            wide = _mask(mask, shape.heads, -(-blocks // 2), density, seed, device)
            doubled = wide.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :blocks, :blocks].contiguous()
            for label, (peer, block) in SPARSE.items():
                if label not in who:
                    continue

                def make(task: Any, peer: Any = peer, block: int = block) -> Any:
                    return peer(task, block)

                if block == 128:
                    yield contest(label, make, mask, density, doubled, perm)
                    yield contest(f"{label} 64>128", make, mask, density, keep, perm)
                else:
                    yield contest(label, make, mask, density, keep, perm)
        yield from (contest(label, ours[label], mask, density, keep, perm) for label in OURS if label in who)

    for mask, density in [("dense", 1.0), *((m, d) for m in kinds for d in shares)]:
        yield from (row for row in entries(mask, density) if row is not None)


def _mask(kind: str, heads: int, blocks: int, density: float, seed: int, device: torch.device) -> Tensor:
    if kind == "band":
        return band_mask(heads, blocks, density, device)
    return random_mask(heads, blocks, density, seed, device)


def _draw(rows: list[dict[str, Any]], device: str, path: Path) -> None:
    """All-in time over density, a panel a shape and mask."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((r["shape"], r["mask"]) for r in rows if r["mask"] != "dense"))
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(4 * max(1, len(panels)), 3.5), squeeze=False)
    for axis, (shape, mask) in zip(axes[0], panels, strict=False):
        here = [r for r in rows if r["shape"] == shape and r["mask"] in (mask, "dense")]
        for label in dict.fromkeys(r["who"] for r in here):
            points = sorted((r["density"], r["all_in_ms"]) for r in here if r["who"] == label)
            axis.plot(*zip(*points, strict=True), marker="o", label=label)
        axis.set(title=f"{shape}, {mask}", xlabel="density", ylabel="all-in, ms", yscale="log")
        axis.legend(fontsize=6)
    figure.suptitle(device)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    plt.close(figure)
    write_whole(path, drawn.getvalue())
