"""`fulgurite demo`: the page."""

from __future__ import annotations

import contextlib
import threading

from rich.console import Console

from ...registry import COMMANDS, UserError, install_line

NAMES = ("dnd", "chunking", "paro", "viki", "gamecraft")


@COMMANDS.register("demo")
def demo(tabs: str = ",".join(NAMES), host: str = "127.0.0.1", port: int | None = None, warm: bool = True) -> int:
    """One page in the browser with a tab for each paper, on the released small weights; this machine alone reaches it.

    Args:
        tabs: which, with commas: dnd, chunking, paro, viki, gamecraft.
        host: address to listen on; anything but the loopback lets others use the page, too, without the game.
        port: port to listen on; default: a free one from 7860.
        warm: load what the tabs need before the page opens, so that no first visitor waits.

    Raises:
        UserError: for an unknown tab, without gradio, or where the port is taken.
    """
    import importlib.util

    wanted = [name.strip() for name in tabs.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NAMES]:
        raise UserError(f"--tabs: no tab '{unknown[0]}'\ntabs: {' '.join(NAMES)}"[:300])
    if not wanted:
        raise UserError(f"--tabs names no tab\ntabs: {' '.join(NAMES)}")
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"the page needs gradio:\n{install_line('demo')}")
    from ...lightning_modules.gamecraft.play.server import check_address, is_loopback
    from . import chunking, dnd, gamecraft, paro, viki

    if port is not None:
        check_address(host, port)

    known = {m.TAB.name: m.TAB for m in (dnd, chunking, paro, viki, gamecraft)}
    chosen = [known[name] for name in wanted]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not is_loopback(host):
        console.print(f"[yellow]--host {host}: whoever reaches this machine can use the page and load files into it; "
                      "the game, which listens on the loopback alone, is left out.[/yellow]")  # fmt: skip
        chosen = [tab for tab in chosen if tab.name != "gamecraft"]
    if warm:
        for tab in chosen:
            if tab.missing():
                continue
            console.print(f"{tab.title}: loading …")
            try:
                tab.warm_up()
            except UserError as error:
                console.print(f"[yellow]{tab.title}: {error}[/yellow]")
    from .page import served

    with served(chosen, host, port) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"the page is at {address}   (Ctrl-C ends)", flush=True)
        threading.Event().wait()
    return 0
