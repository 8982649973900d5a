"""`fulgurite gamecraft export`: a trained autoencoder and transformer as one folder to play from, with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from ...datamodules.files import atomic_write
from ...registry import COMMANDS, UserError

SHARD = "15MB"
LARGEST_BYTES = 16_000_000
SCHEMA_VERSION = 1
SAMPLING = "sampling.json"
ABOUT = """\
Continues first-person gameplay by chunks of 33 frames (25 frames/s), given keys with speeds, after the method of
Hunyuan-GameCraft (arXiv 2506.17201) at a small size. Trained from scratch by fulgurite on pictures that it rendered
itself with ViZDoom from the levels and graphics of Freedoom (modified BSD licence); no other data, no other weights.
Captions are MiniLM's token states; those it was trained with lie in `captions.safetensors`.

It knows these levels' looks and walking about in them. It does not remember what is older than one chunk, knows no
enemies, weapons or doors, and its pictures are not to be taken for the game's own.

    fulgurite gamecraft play --weights {folder}
"""
STORED = "in eight bits, a scale for each output; the numbers below were measured before that rounding"


@COMMANDS.register("gamecraft export", paper="2506.17201")
def export(
    vae: Path,
    transformer: Path,
    out: Path,
    results: list[Path] | None = None,
    height: int = 64,
    width: int = 112,
    camera: str = "shear",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_w: float | None = None,
    eight_bits: bool = False,
    title: str = "gamecraft-doom",
) -> None:
    """Write a folder that `gamecraft play` and `GameCraftPipeline.from_pretrained` open, in files up to 15 MB.

    Weights are bfloat16; with `eight_bits` matrices and kernels are int8 with a scale an output, expanded on
    opening.

    The numbers in its card are copied from the files in `results`, and from nowhere else.

    Args:
        vae: folder of the autoencoder.
        transformer: folder of the teacher or student; beside it lie the captions and how to sample, from its training.
        out: folder to write; replaced if it is one already.
        results: results.json files whose statements, metrics and tables the card shows.
        height: rows of a picture.
        width: columns of a picture.
        camera: shear (ViZDoom) or pinhole.
        num_inference_steps: steps a chunk; default: the training's.
        guidance_scale: guidance of a teacher; default: the training's.
        guidance_w: guidance weight of a student; default: the training's.
        eight_bits: half the bytes; other programs than this one can't open it then.
        title: name in the card.
    """
    import torch

    from ..eight_bits import save_eight_bits
    from .captions_encoder import CaptionEncoder
    from .pipeline import BANK, GameCraftPipeline
    from .transformer import GameCraftTransformer
    from .vae import GameplayVAE

    for folder in (vae, transformer):
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no trained weights here (config.json is missing)")
    if out.exists() and not (out / "model_index.json").is_file():
        raise UserError(f"{out}: is there and holds something else\nName another folder, or delete it.")
    sections = [read_results(path) for path in results or []]
    asked = {
        "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "guidance_w": guidance_w,
    }  # fmt: skip
    sampling = read_sampling(transformer.parent) | {k: v for k, v in asked.items() if v is not None}
    pipeline = GameCraftPipeline(
        GameCraftTransformer.from_pretrained(transformer, torch_dtype=torch.bfloat16),
        GameplayVAE.from_pretrained(vae, torch_dtype=torch.bfloat16),
        CaptionEncoder.load(transformer.parent / BANK),
        height,
        width,
        camera,
        **sampling,
    )
    for part in (pipeline.transformer, pipeline.vae):
        part.register_to_config(_name_or_path="")  # a folder of this machine
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary, max_shard_size=SHARD)
    if eight_bits:
        for name, kind, trained in (("transformer", GameCraftTransformer, transformer), ("vae", GameplayVAE, vae)):
            shutil.rmtree(temporary / name)
            whole = kind.from_pretrained(trained)
            whole.register_to_config(_name_or_path="")
            save_eight_bits(whole, temporary / name)
    too_large = [p.name for p in temporary.rglob("*") if p.is_file() and p.stat().st_size > LARGEST_BYTES]
    if too_large:
        raise UserError(f"{out}: files above {LARGEST_BYTES // 10**6} MB: {', '.join(too_large)}")
    counts = {name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in ("transformer", "vae")}
    settings = {"height": height, "width": width, **sampling}
    if eight_bits:
        settings["stored"] = STORED
    card = model_card(title, out, counts, settings, sections)
    with atomic_write(temporary / "README.md") as file:
        file.write_text(card, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    temporary.replace(out)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"{out}: {size / 1e6:.1f} MB")


def read_sampling(folder: Path) -> dict[str, Any]:
    """How the weights in this folder are to be sampled: the pipeline's arguments of that name.

    Raises:
        UserError: if there is no such file, or one of another version.
    """
    path = folder / SAMPLING
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {error}\nA training writes it beside its transformer.") from None
    if found.pop("schema_version", None) != SCHEMA_VERSION:
        raise UserError(f"{path}: of another version than {SCHEMA_VERSION}")
    return dict(found)


def read_results(path: Path) -> dict[str, Any]:
    """A stage's results.json, with the name of the stage's folder as `stage`.

    Raises:
        UserError: if it can't be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as results: {error}") from None
    return {"stage": path.resolve().parent.name, **found}


def model_card(
    title: str, out: Path, counts: dict[str, int], settings: dict[str, Any], sections: list[dict[str, Any]]
) -> str:
    """The text of the model card.

    Args:
        title: its name.
        out: the folder, for the command.
        counts: parameters by part.
        settings: what the pipeline is saved with.
        sections: what `read_results` gave.
    """
    parts = ["---\nlibrary_name: diffusers\npipeline_tag: image-to-video\n---", f"# {title}", ABOUT.format(folder=out)]
    parts.append("## Parts\n\n" + _table(["part", "parameters"], [[k, f"{v:,}"] for k, v in counts.items()]))
    parts.append("## Sampling\n\n" + _table(["setting", "value"], [[k, v] for k, v in settings.items()]))
    for section in sections:
        parts.append(f"## Numbers of the stage `{section['stage']}`")
        parts += [f"- {statement}" for statement in section.get("statements", [])]
        if section.get("metrics") and not section.get("tables"):  # tables hold the same numbers
            parts.append(_table(["metric", "value"], list(section["metrics"].items())))
        for item in section.get("tables", []):
            note = f"\n\n{item['note']}" if item.get("note") else ""
            parts.append(f"**{item['title']}**\n\n{_table(item['columns'], item['rows'])}{note}")
    return "\n\n".join(parts) + "\n"


def _table(columns: list[str], rows: list[Any]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell(v) for v in line) + " |" for line in lines)
