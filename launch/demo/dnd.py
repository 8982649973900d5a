"""The tab of Drag-and-Drop LLMs (arXiv 2506.16406): unlabelled prompts to an adapter, answers with and without it."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ...registry import UserError
from .tab import Tab, told

if TYPE_CHECKING:
    from torch import Tensor

    from ...datamodules.dnd.conditions import PromptEncoder
    from ...lightning_modules.dnd.adapted import AdaptedModel
    from ...lightning_modules.dnd.generator import TrainedGenerator

MAX_PROMPTS = 512
NEW_TOKENS = 24
EXAMPLES = ["Is the word 'tables' singular or plural?", "Is the word 'child' singular or plural?"]
_answering = threading.Lock()  # one base model, whose adapter changes


@functools.cache
def trained() -> tuple[TrainedGenerator, PromptEncoder, AdaptedModel]:
    """The newest run's generator, its encoder, and the base model with room for an adapter.

    Raises:
        UserError: without a run.
    """
    from ...lightning_modules.dnd.adapt import newest_generator
    from ...lightning_modules.dnd.adapted import AdaptedModel
    from ...lightning_modules.dnd.generator import TrainedGenerator

    found = TrainedGenerator.load(newest_generator(Path("runs")))
    return found, found.encoder(), AdaptedModel(found.meta["base_model"], found.meta["adapter_config"])


@functools.lru_cache(maxsize=8)
def adapter(prompts: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """An adapter for prompts, and what the coverage score says of them."""
    generator, encoder, _ = trained()
    state = generator.adapter(generator.generate(encoder.encode(generator.choose(prompts, 0))[0]))
    nearest, cosine, floor = generator.coverage(encoder.embed(list(prompts)))
    told_as = "inside" if cosine >= floor else "outside"
    note = (
        f"Coverage: nearest training task {nearest}, cosine {cosine:.2f}; the training tasks' own lie from {floor:.2f} "
        f"on: {told_as} of what the generator was trained on."
    )
    return state, note


@told
def compare(lines: str, question: str) -> tuple[str, str, str]:
    """The base model's answer, the adapted one's, and the coverage of the prompts.

    Raises:
        UserError: without prompts, or with too many, or without a question.
    """
    prompts = tuple(dict.fromkeys(line.strip() for line in lines.splitlines() if line.strip()))
    if not prompts or len(prompts) > MAX_PROMPTS:
        raise UserError(
            f"{len(prompts)} different prompts: give 1 to {MAX_PROMPTS}, one a line; no answers are needed."
        )
    if not question.strip():
        raise UserError("Type a question first.")
    generator, _, model = trained()
    state, note = adapter(prompts)
    with _answering:
        model.load(state)
        adapted = model.answer(generator.text, question.strip(), NEW_TOKENS)
        with model.without_adapter():
            base = model.answer(generator.text, question.strip(), NEW_TOKENS)
    return base, adapted, note


def build() -> None:
    """The tab's content."""
    import gradio

    gradio.Markdown(
        "Give prompts of a task, without their answers. The generator turns them into a LoRA adapter in one pass; "
        "below, the small language model answers a question of that task with and without it. The generator is that of "
        "your newest run of `fulgurite run dnd/tiny`."
    )
    with gradio.Row():
        with gradio.Column():
            lines = gradio.Textbox("\n".join(EXAMPLES), lines=8, label="Prompts, one a line", elem_id="dnd-prompts")
            question = gradio.Textbox(EXAMPLES[0], label="Question", elem_id="dnd-question")
            go = gradio.Button("Make the adapter and ask", variant="primary", elem_id="dnd-go")
        with gradio.Column():
            base = gradio.Textbox(label="The base model", interactive=False, elem_id="dnd-base")
            adapted = gradio.Textbox(label="With the adapter", interactive=False, elem_id="dnd-adapted")
            note = gradio.Markdown(elem_id="dnd-note")
    go.click(compare, [lines, question], [base, adapted, note], concurrency_limit=1)


TAB = Tab("dnd", "Drag-and-Drop", "2506.16406", "dnd", ("peft", "transformers"), build, trained)
