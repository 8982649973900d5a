"""`fulgurite viki release`: a trained policy into weights/, in bfloat16 or 8 bits, with a card of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...registry import COMMANDS, UserError

MAX_BYTES = 16 << 20
HEAD = """# A small policy for VIKI's kitchens

Sees a kitchen with robots and says which robots a task needs, plans for them, or tells the ways of two arms, after the
method of VIKI-R (arXiv 2506.09049) at a small size: a Qwen2.5-VL of {count:,} parameters that started from nothing,
{size:,} bytes in {form}. Trained by fulgurite on records and pictures that it made itself (MuJoCo kitchens with
meshes of real robots; none of them is in here); no other data, no other weights. Licence as of the repository.

    fulgurite viki solve PICTURE "Put the apple into the bowl." --weights {folder} --robots R1=stompy

It knows these kitchens, things and wordings and no others: it is no robot planner. Made by `fulgurite viki release`, of
the numbers below all. `no pictures` is the same policy without them, `trained blind` one that never had any, `constant`
the one answer that is best on training records.
"""


@COMMANDS.register("viki release", paper="2506.09049")
def release(policy: Path, results: list[Path], out: Path, *, eight_bits: bool = False) -> None:
    """Put a trained policy and its model card into a folder; an earlier policy there is replaced.

    Args:
        policy: folder of the policy.
        results: files results.json that `fulgurite viki evaluate` wrote for it.
        out: folder for weights, tokenizer, configuration and README.md.
        eight_bits: half of bfloat16's bytes; transformers can't open it then.

    Raises:
        UserError: if the folder holds something else than a policy, or the weights are more than MAX_BYTES; what is
            there is then left as it was.
    """
    import torch

    from .policy.folder import new_policy_folder
    from .policy.policy import VikiPolicy

    measured = [_read(file) for file in results]
    sections = ["\n".join(f"- {text}" for one in measured for text in one["statements"])]
    sections += [_table(table) for one in measured for table in one["tables"]]
    trained = VikiPolicy.load(policy, dtype=torch.float32 if eight_bits else torch.bfloat16)
    form = "eight bits" if eight_bits else "bfloat16"
    count = sum(p.numel() for p in trained.parameters())
    with new_policy_folder(out) as staging:
        trained.save_eight_bits(staging) if eight_bits else trained.save(staging)
        size = sum(file.stat().st_size for file in staging.glob("*.safetensors"))
        if size > MAX_BYTES:
            raise UserError(f"{policy}: {size:,} bytes of weights, more than {MAX_BYTES:,}")
        text = "\n\n".join([HEAD.format(count=count, size=size, form=form, folder=f"weights/{out.name}"), *sections])
        (staging / "README.md").write_text(text + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        assert {"statements", "tables"} <= found.keys(), "no statements or tables"
        return found
    except (OSError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(f"{file}: can't be read as results: {error}\nfulgurite viki evaluate writes them.") from None


def _table(table: dict[str, Any]) -> str:
    def line(cells: list[Any]) -> str:
        told = ("–" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
        return "| " + " | ".join(told) + " |"

    rows = [line(table["columns"]), "|" + "---|" * len(table["columns"]), *map(line, table["rows"])]
    return "\n".join([f"{table['title']}. {table['note']}".strip(), "", *rows])
