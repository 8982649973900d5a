"""`fulgurite dnd adapt`: unlabelled prompts in, a PEFT adapter out, in one forward pass."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...datamodules.sources.models import resolve_model
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from .generator import TrainedGenerator

COVERAGE_SAMPLE = 512
MAX_SEED = 2**32 - 1  # as for a run's seed_everything
CARD_TITLE = "# A generated LoRA adapter"


@COMMANDS.register("dnd adapt", paper="2506.16406")
def adapt(prompts: Path, out: Path, checkpoint: Path | None = None, seed: int = 0, device: str = "auto") -> None:
    """Turn a file of prompts into a LoRA adapter folder that PEFT opens.

    Args:
        prompts: text file with one prompt a line, or JSON Lines with a field `prompt`; no answers are needed.
        out: folder for adapter_config.json, adapter_model.safetensors and a model card.
        checkpoint: folder of a trained generator, `<run>/generator/generator`; default: that of the newest run.
        seed: seed of the draw of prompts.
        device: cpu, cuda or auto, which takes a GPU where there is one.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed is a whole number from 0 to {MAX_SEED}, not {seed}"[:200])
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    clock = Stopwatch()
    from ...datamodules.dnd.prompts import read_prompts

    texts = read_prompts(prompts)
    folder = checkpoint or newest_generator(Path("runs"))
    _check_writable(out)
    from ..device import pick_device
    from .adapted import write_adapter
    from .generator import TrainedGenerator

    place = pick_device(device)
    trained = TrainedGenerator.load(folder).to(place)
    encoder = trained.encoder()
    needed = trained.meta["num_prompts"]
    if len(set(texts)) < needed:
        console.print(
            f"[yellow]{len(set(texts))} different prompts, the generator was trained with {needed}: "
            "they are repeated; expect a worse adapter.[/yellow]"
        )
    clock.lap("load")
    condition_NLC = encoder.encode(trained.choose(texts, seed))[0]
    clock.lap("encode")
    tokens_THW = trained.generate(condition_NLC)
    clock.lap("decode")
    state = trained.adapter(tokens_THW)
    clock.lap("detokenise")
    sample = texts if len(texts) <= COVERAGE_SAMPLE else texts[:: -(-len(texts) // COVERAGE_SAMPLE)]
    nearest, cosine, floor = trained.coverage(encoder.embed(sample))
    clock.lap("coverage")
    card = model_card(trained, len(texts), nearest, cosine, floor)
    write_adapter(out, state, trained.meta["adapter_config"], card)
    clock.lap("write")
    console.print(f"adapter for {trained.meta['base_model']} in {out}, made on {place}")
    console.print("time: " + ", ".join(f"{k} {v:.3f} s" for k, v in clock.laps.items()))
    console.print(
        f"coverage: nearest training task {nearest}, cosine {cosine:.2f} (training tasks' own: from {floor:.2f})"
    )
    if cosine < floor:
        console.print(
            "[yellow]These prompts lie outside of what the generator was trained on: "
            "do not expect the adapter to help.[/yellow]"
        )


class Stopwatch:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the time since the last lap."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def newest_generator(root: Path) -> Path:
    """The generator that a run below `root` finished last; runs of dnd/smoke, which are tests, don't count.

    Raises:
        UserError: if there is none.
    """
    candidates = root.glob("dnd/*/*/generator/generator/generator.json")
    found = sorted((f for f in candidates if f.parts[-5] != "smoke"), key=lambda f: f.stat().st_mtime)
    if not found:
        raise UserError(
            f"no trained generator below {root}\n"
            "Give one with --checkpoint FOLDER, or train one:\nfulgurite run dnd/tiny"
        )
    return found[-1].parent


def _check_writable(out: Path) -> None:
    """Find out before the work whether the result can be written, and that it takes no other file's place.

    Raises:
        UserError: if it can't, `out` is a file, or holds a README or adapter that no earlier call made.
    """
    card = out / "README.md"
    made_here = card.is_file() and CARD_TITLE in card.read_text(encoding="utf-8", errors="replace")
    taken = [name for name in (card.name, "adapter_config.json", "adapter_model.safetensors") if (out / name).exists()]
    if taken and not made_here:
        raise UserError(
            f"{out}: holds a {taken[0]} that is not from here, and would be lost\nChoose another folder with --out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}\nChoose another folder with --out.") from None


def model_card(trained: TrainedGenerator, num_prompts: int, nearest: str, cosine: float, floor: float) -> str:
    """README.md of the adapter: how it was made, and how far to trust it."""
    inside = "inside" if cosine >= floor else "OUTSIDE: do not expect it to help"
    return f"""---
base_model: {trained.meta["base_model"]}
library_name: peft
tags: [lora, drag-and-drop-llms]
---
{CARD_TITLE}

Made by a Drag-and-Drop generator (arXiv 2506.16406) from {num_prompts} unlabelled prompts, in one forward
pass: no training on this task, no labels. Base model `{trained.meta["base_model"]}`.

- Training tasks of the generator: {", ".join(trained.tasks)}.
- Coverage: nearest training task {nearest}, cosine {cosine:.2f}; the training tasks' own held-out prompts reach
  {floor:.2f} and more. These prompts are {inside}.
- The chat format it expects: `{trained.text.template!r}`, ended by `{trained.text.end}`.

Expect less than from a fine-tuned adapter: it has the habits of the training tasks (short answers, their format) also
where they do not fit, and it knows no more than they did.

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("{resolve_model(trained.meta["base_model"])}")
    model = PeftModel.from_pretrained(base, "this folder")

The base model lies at `{resolve_model(trained.meta["base_model"])}` on the machine that made this;
`fulgurite fetch` brings the named ones. A name that is no Hugging Face id, such as smollm2-135m-instruct, has
to be loaded from that folder.
"""
