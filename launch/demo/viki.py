"""The tab of VIKI-R (arXiv 2506.09049): a kitchen, an instruction, and the plan of a policy played step by step."""

from __future__ import annotations

import functools
import html
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .tab import Tab, framed, told

if TYPE_CHECKING:
    from ...datamodules.viki.pictures import Photographer
    from ...datamodules.viki.records import Record
    from ...lightning_modules.viki.policy.policy import VikiPolicy

SPLITS = {
    "kitchens like those of training": "test",
    "layouts and styles held out": "heldout_scene",
    "a family of tasks held out": "heldout_family",
    "a pair of robots held out": "heldout_pair",
}
NUM_SCENES = 500
FIRST = 7
MAX_TOKENS = 320
_drawing = ThreadPoolExecutor(1, thread_name_prefix="kitchens")  # an OpenGL context belongs to one thread


@functools.cache
def policy() -> VikiPolicy:
    """The released small policy."""
    from ...lightning_modules.viki.policy.policy import VikiPolicy
    from ...lightning_modules.viki.solve import DEFAULT_WEIGHTS

    return VikiPolicy.load(str(DEFAULT_WEIGHTS)).eval()


@functools.cache
def photographer() -> Photographer:
    """The kitchens' renderer, for pictures of the size that the policy knows; for `_drawing`'s thread alone."""
    from ...datamodules.viki.pictures import Photographer

    return Photographer(policy().asked.picture_sizes["2"]).__enter__()


@functools.lru_cache(maxsize=32)
def scene(split: str, number: int) -> Record:
    """A record of level 2 with its picture, of the default seed's draw."""
    return _drawing.submit(lambda: photographer().take(2, split, number, 0)).result()


@functools.lru_cache(maxsize=64)
def plan(split: str, number: int, blind: bool) -> str:
    """The policy's answer to a scene; `blind`: to the same words beside an empty picture."""
    import io
    from dataclasses import replace

    from PIL import Image

    asked = scene(split, number)
    if blind:
        grey = io.BytesIO()
        Image.new("RGB", Image.open(io.BytesIO(asked.images[0])).size, (128, 128, 128)).save(grey, "PNG")
        asked = replace(asked, images=(grey.getvalue(),))
    batch = policy().encode([policy().asked.prompt(asked)])
    return str(policy().generate(batch, greedy=True, max_new_tokens=MAX_TOKENS).texts[0])


@told
def show(split: str, number: float) -> tuple[Any, str]:
    """A scene: its picture and its instruction."""
    import io

    from PIL import Image

    found = scene(SPLITS[split], int(number))
    team = found.problem
    robots = ", ".join(f"{agent}: {name}" for agent, name in zip(team.agents, team.types, strict=True))
    return Image.open(io.BytesIO(found.images[0])), f"**{html.escape(found.instruction)}**\n\n{robots}"


@told
def solve(split: str, number: float, who: str) -> str:
    """A plan, the policy's or the planner's, played step by step, with the checker's verdict."""
    from ...lightning_modules.viki.show import page

    name, index = SPLITS[split], int(number)
    found = scene(name, index)
    answer = found.answer() if who == WHO[2] else plan(name, index, who == WHO[1])
    shown = page(found, answer, strict=True, own=who == WHO[2])
    return framed("The plan, step by step", shown)


WHO = ("the released policy", "the same policy, its picture taken away", "the planner")


def build() -> None:
    """The tab's content."""
    import gradio

    gradio.Markdown(
        "A kitchen with robots of different build, and a task. The small released policy looks at the picture and "
        "writes a plan; the checker carries it out by strict rules. The same policy with its picture taken away, and "
        "the planner, which knows the kitchen's state, stand beside it."
    )
    with gradio.Row():
        with gradio.Column(scale=2):
            split = gradio.Dropdown(list(SPLITS), value=next(iter(SPLITS)), label="Scenes", elem_id="viki-split")
            number = gradio.Slider(0, NUM_SCENES - 1, value=FIRST, step=1, label="Number", elem_id="viki-number")
            look = gradio.Button("Show the scene", elem_id="viki-look")
            picture = gradio.Image(
                label="What the policy sees", show_label=False, interactive=False, elem_id="viki-picture", buttons=[]
            )
            words = gradio.Markdown(elem_id="viki-words")
            who = gradio.Radio(list(WHO), value=WHO[0], label="Who plans", elem_id="viki-who")
            go = gradio.Button("Plan and play it", variant="primary", elem_id="viki-go")
        with gradio.Column(scale=3):
            played = gradio.HTML(label="The plan, step by step", elem_id="viki-plan")
    look.click(show, [split, number], [picture, words], concurrency_id="viki", concurrency_limit=1)
    go.click(show, [split, number], [picture, words], concurrency_id="viki").then(
        solve, [split, number, who], played, concurrency_id="viki"
    )


def warm_up() -> None:
    """Load the policy and make the renderer ready."""
    scene("test", FIRST)


TAB = Tab("viki", "VIKI-R", "2506.09049", "viki", ("mujoco", "ray", "transformers"), build, warm_up)
