"""`fulgurite gamecraft play`: the page in a browser, or a film from written actions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ....registry import COMMANDS, UserError

if TYPE_CHECKING:
    from .server import PlayServer
    from .starts import Start
    from .world import PipelineWorld

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000


@COMMANDS.register("gamecraft play", paper="2506.17201")
def play(
    weights: Path | None = None,
    image: Path | None = None,
    prompt: str | None = None,
    actions: str | None = None,
    out: Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    compile: bool = False,
    attention: str | dict[str, Any] | None = None,
    plan: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> int:
    """Play the model in a browser; or, with --actions and --out, write the film of actions that you name.

    The page is reached from this machine only. Keys W A S D walk, arrows and the mouse look; what is held while a
    chunk of 33 frames is shown shapes the next.

    Args:
        weights: folder of a pipeline; default: weights/gamecraft-doom.
        image: picture to start from, of any size; default: the first one that comes with the weights.
        prompt: what the picture shows, such as "doom hall, dark, indoor"; default: what comes with it, or fits it.
        actions: keys joined by +, @ sets the speed as a fraction, : the frames: "w@0.8:33 a@0.3+left@0.5:33".
        out: film to write, .mp4 or .gif.
        steps: sampling steps a chunk; default: what the weights were made for.
        seed: seed of the noise; default: 0 for a film, other noise at every start for the page.
        device: cpu, cuda or auto.
        compile: let torch compile the model: a minute's wait, then faster.
        attention: backend of the network's attention, such as sdpa or paro; or a mapping of layer patterns to backends.
        plan: file of the plan for paro or int4, made for these weights.
        host: address to listen on; anything but the loopback lets others play, too.
        port: port to listen on; 0 takes a free one.
    """
    if (actions is None) != (out is None):
        raise UserError("a film needs both --actions and --out; the page needs neither")
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps {steps}: a whole number from 1 to {MAX_STEPS}")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise UserError("--seed is a whole number from 0 to 2^63 - 1")
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a whole number from 0 to 65535")

    def world() -> PipelineWorld:
        from .world import load_world

        noise = seed if out is None else seed or 0
        return load_world(
            weights, device, num_inference_steps=steps, seed=noise, compile=compile, attention=attention, plan=plan
        )

    if out is not None:
        return _film(world, weights, image, prompt, actions or "", out)
    return _page(world, weights, image, prompt, host, port)


def _film(
    open_world: Callable[[], PipelineWorld],
    weights: Path | None,
    image: Path | None,
    prompt: str | None,
    actions: str,
    out: Path,
) -> int:
    from ....datamodules.gamecraft.actions import parse_actions
    from .film import check_film
    from .headless import render

    segments = parse_actions(actions)
    check_film(out)
    world = open_world()
    start = _starts(world, weights, image, prompt)[0]
    num_frames = sum(s.num_frames for s in segments)
    taken_s = render(world, start, segments, out)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{out}: {num_frames} frames after the start, made in {taken_s:.1f} s", markup=False)
    return 0


def _page(
    open_world: Callable[[], PipelineWorld],
    weights: Path | None,
    image: Path | None,
    prompt: str | None,
    host: str,
    port: int,
) -> int:
    from .server import check_address, is_loopback, play_page

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    check_address(host, port)
    console.print("warming up …")
    server = page_server(weights, image, prompt, open_world)
    if not is_loopback(host):
        console.print(
            f"[yellow]--host {host}: whoever reaches this machine can play, and load pictures into it.[/yellow]"
        )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            play_page(server, host, port, lambda address: print(f"play at {address}   (Ctrl-C ends)", flush=True))
        )
    return 0


def page_server(
    weights: Path | None,
    image: Path | None = None,
    prompt: str | None = None,
    open_world: Callable[[], PipelineWorld] | None = None,
) -> PlayServer:
    """The page's server, its model loaded and warm.

    Args:
        weights: folder of a pipeline; None = weights/gamecraft-doom.
        image, prompt: as for `play`.
        open_world: loads the model; None: on the CPU or a GPU, as it is.

    Raises:
        UserError: if the weights or the picture can't be read.
    """
    from .server import PlayServer
    from .starts import caption_of
    from .world import load_world

    world = (
        open_world() if open_world else load_world(weights, "auto", num_inference_steps=None, seed=None, compile=False)
    )
    where = f"{world.pipeline.device}".removesuffix(":0")
    server = PlayServer(
        world,
        _starts(world, weights, image, prompt),
        *world.size,
        title=f"{(weights.resolve().name if weights else 'gamecraft-doom')} on {where}",
        caption_of=lambda image: caption_of(image, world.known_captions),
    )
    server.executor.submit(world.warm_up).result()
    return server


def _starts(world: PipelineWorld, weights: Path | None, image: Path | None, prompt: str | None) -> list[Start]:
    """The picture that was asked for, then those that come with the weights, all of the model's size.

    Raises:
        UserError: if there is none at all.
    """
    from ..start_frames import fitted
    from .starts import FOLDER, Start, bundled_starts, caption_of, read_picture
    from .world import DEFAULT_WEIGHTS

    folder = weights or DEFAULT_WEIGHTS
    picture = read_picture(image) if image else None
    own = [Start(image.stem, picture, caption_of(picture, world.known_captions))] if image and picture else []
    found = [*own, *(s for s in bundled_starts(folder) if not image or s.name != image.stem)]
    if not found:
        raise UserError(f"{folder / FOLDER}: holds no start frame\nGive a picture with --image FILE.")
    if prompt is not None:
        found[0] = Start(found[0].name, found[0].image, prompt)
    return [Start(s.name, fitted(s.image, *world.size), s.caption) for s in found]
