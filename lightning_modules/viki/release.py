"""`fulgurite viki release`: a trained policy into weights/, in bfloat16, with a card of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...registry import COMMANDS, UserError

MAX_BYTES = 16 << 20
HEAD = """# A small policy for VIKI's kitchens

Sees a kitchen with robots and says which robots a task needs, plans for them, or tells the ways of two arms, after the
method of VIKI-R (arXiv 2506.09049) at a small size: a Qwen2.5-VL of {count:,} parameters that started from nothing,
{size:,} bytes in bfloat16. Trained by fulgurite on records and pictures that it made itself (MuJoCo kitchens with
meshes of real robots; none of them is in here); no other data, no other weights. Licence as of the repository.

    fulgurite viki solve PICTURE "Put the apple into the bowl." --weights {folder} --robots R1=stompy

It knows these kitchens, things and wordings and no others: it is no robot planner. Made by `fulgurite viki release`, of
the numbers below all. `no pictures` is the same policy without them, `trained blind` one that never had any, `constant`
the one answer that is best on training records.
"""


@COMMANDS.register("viki release", paper="2506.09049")
def release(policy: Path, results: Path, out: Path) -> None:
    """Put a trained policy and its model card into a folder.

    Args:
        policy: folder of the policy.
        results: results.json that `fulgurite viki evaluate` wrote for it.
        out: folder for weights, tokenizer, configuration and README.md.
    """
    import torch

    from ...datamodules.files import atomic_write
    from .policy.policy import VikiPolicy

    try:
        measured: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        sections = ["\n".join(f"- {text}" for text in measured["statements"]), *map(_table, measured["tables"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{results}: can't be read as results: {error}\nfulgurite viki evaluate writes them.") from None
    trained = VikiPolicy.load(policy, dtype=torch.bfloat16)
    trained.save(out)
    size = (out / "model.safetensors").stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{out}: {size:,} bytes of weights, more than {MAX_BYTES:,}")
    count = sum(p.numel() for p in trained.parameters())
    with atomic_write(out / "README.md") as temporary:
        text = "\n\n".join([HEAD.format(count=count, size=size, folder=f"weights/{out.name}"), *sections])
        temporary.write_text(text + "\n", encoding="utf-8")


def _table(table: dict[str, Any]) -> str:
    def line(cells: list[Any]) -> str:
        told = ("–" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
        return "| " + " | ".join(told) + " |"

    rows = [line(table["columns"]), "|" + "---|" * len(table["columns"]), *map(line, table["rows"])]
    return "\n".join([f"{table['title']}. {table['note']}".strip(), "", *rows])
