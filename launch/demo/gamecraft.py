"""The tab of Hunyuan-GameCraft (arXiv 2506.17201): the page of `gamecraft play` in a frame."""

from __future__ import annotations

import asyncio
import functools
import threading

from ...registry import UserError
from .tab import Tab, told

START_S = 120.0


@functools.cache
def address() -> str:
    """Where the game is served, on the loopback; the first call loads the model and starts the server.

    Raises:
        UserError: without the released weights.
    """
    from ...lightning_modules.gamecraft.play.command import page_server

    server = page_server(None)
    found: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with server.listening() as where:
            found.append(where)
            ready.set()
            await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(serve()), name="gamecraft-page", daemon=True).start()
    if not ready.wait(START_S):
        raise UserError(f"The game's server did not start within {START_S:.0f} s.")
    return found[0]


@told
def start() -> str:
    """A frame with the game."""
    where = address()
    return (
        f'<iframe title="The game" class="view" src="{where}" allow="fullscreen"></iframe>'
        f'<p><a href="{where}" target="_blank" rel="noopener">The game on a page of its own</a></p>'
    )


def build() -> None:
    """The tab's content."""
    import gradio

    gradio.Markdown(
        "Walk with W A S D, look with the arrow keys or the mouse: the model makes every frame from the ones before "
        "and your keys. Nothing else runs well beside it on two cores."
    )
    go = gradio.Button("Start the game", variant="primary", elem_id="gamecraft-go")
    frame = gradio.HTML(label="The game", elem_id="gamecraft-frame")
    go.click(start, None, frame, concurrency_limit=1)


TAB = Tab(
    "gamecraft", "GameCraft", "2506.17201", "gamecraft", ("diffusers", "websockets", "av"), build, address
)  # fmt: skip
