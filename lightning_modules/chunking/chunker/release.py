"""`fulgurite chunking release`: a trained chunker into weights/, with a model card made of what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....registry import COMMANDS, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 8 << 20
HEAD = """# The trained chunker of the reader `layout`

Judges the blocks of a PDF's pages for vision-guided chunking (arXiv 2506.16035 has a large vision-language model do
it): role, begin of a chunk, flag. {size:,} bytes in half precision, code {code}. Trained on typeset documents alone
(`fulgurite run chunking/chunker`); no real document was learned from. Made by `fulgurite chunking release`, of the
numbers below all. Licence as of the repository. It needs a text layer, and MiniLM-L6 for the words.
"""


@COMMANDS.register("chunking release", paper="2506.16035")
def release(trained: Path, compared: Path, out: Path) -> None:
    """Put a trained chunker and its model card into a folder.

    Args:
        trained: folder of the training stage, which holds `chunker` and results.json.
        compared: folder that `fulgurite chunking compare` wrote for it.
        out: folder for weights, config and README.md.
    """
    from ....datamodules.files import atomic_write

    weights = trained / "chunker" / "model.safetensors"
    results = [_results(folder) for folder in (trained, compared)]
    if not weights.is_file() or weights.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{weights}: is missing, or larger than {MAX_BYTES} bytes\nGive the folder of a finished training."
        )
    out.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(trained / "chunker" / name, out / name)
    code = json.loads((out / "config.json").read_text(encoding="utf-8"))["code"]
    parts = [HEAD.format(size=weights.stat().st_size, code=code)]
    for held in results:
        parts += [*held["statements"], *(_table(t) for t in held["tables"])]
    with atomic_write(out / "README.md") as temporary:
        temporary.write_text("\n\n".join(p.strip() for p in parts) + "\n", encoding="utf-8")


def _results(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'results.json'}: can't be read: {error}\nRun that stage again.") from None


def _table(table: dict[str, Any]) -> str:
    def cell(value: Any) -> str:
        return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(map(cell, cells)) + " |"

    columns = [c or "measure" for c in table["columns"]]
    return "\n".join([f"{table['title']}:", "", line(columns), "|" + "---|" * len(columns), *map(line, table["rows"])])
