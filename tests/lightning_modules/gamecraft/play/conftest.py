"""A world whose answers are known: a texture that moves as its chord says, in a time that the test sets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fulgurite.datamodules.gamecraft.actions import CLIP_FRAMES, Chord
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.play.server import PlayServer
from fulgurite.lightning_modules.gamecraft.play.starts import Start
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE

HEIGHT, WIDTH = 64, 112
PIXELS = 1.5  # that a key at full speed moves the picture by, a frame
ZOOM = 0.015


@dataclass
class MovingTexture:
    """Turning left moves the picture right, walking forward enlarges it; the state is (right, down, log zoom)."""

    seconds: float = 0.05
    chords: list[Chord] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    most_at_once: int = 0
    fails: bool = False

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        # details of 16 pixels: where a busy machine leaves frames out, the flow between two of them can still be told
        noise = rng.integers(0, 256, (16, 28, 3), dtype=np.uint8)
        self.texture = cv2.resize(noise, (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC)
        self._at_once = 0
        self._count = threading.Lock()

    def start(self, image: Image.Image, prompt: str = "") -> tuple[float, float, float]:
        assert image.size == (WIDTH, HEIGHT)
        return 0.0, 0.0, 0.0

    def next_chunk(
        self, state: tuple[float, float, float], chord: Chord
    ) -> tuple[np.ndarray, tuple[float, float, float]]:
        with self._count:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.threads.add(threading.current_thread().name)
        self.chords.append(chord)
        try:
            if self.fails:
                raise RuntimeError("out of memory")
            time.sleep(self.seconds)
            forward, right, left, up = chord.axes()
            frames = []
            for _ in range(CLIP_FRAMES):
                x, y, zoom = state
                state = (x + PIXELS * (left - right), y + PIXELS * up, zoom + ZOOM * forward)
                frames.append(self._view(*state))
            return np.stack(frames)[None], state
        finally:
            with self._count:
                self._at_once -= 1

    def _view(self, x: float, y: float, zoom: float) -> np.ndarray:
        scale = float(np.exp((zoom + 0.3) % 0.6 - 0.3))  # it starts over, before nothing but one detail is left to see
        matrix = np.array([[scale, 0, WIDTH / 2 + x], [0, scale, HEIGHT / 2 + y]])
        matrix[:, 2] -= scale * np.array([2 * WIDTH, 2 * HEIGHT])
        return cv2.warpAffine(self.texture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


@pytest.fixture
def moving_texture() -> type[MovingTexture]:
    return MovingTexture


def picture(colour: tuple[int, int, int] = (90, 60, 30)) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), colour)


@pytest.fixture
def start_picture() -> Image.Image:
    return picture()


@dataclass
class Running:
    """A server in a thread of its own."""

    server: PlayServer
    world: MovingTexture
    address: str

    @property
    def socket(self) -> str:
        return self.address.replace("http", "ws") + "play"

    @property
    def origin(self) -> str:
        return self.address.rstrip("/")


@pytest.fixture
def running_server() -> Iterator[Callable[..., Running]]:
    """`running_server(seconds=0.05)`: a page that plays a MovingTexture, until the test ends."""
    stops: list[Callable[[], None]] = []

    def run(**settings: Any) -> Running:
        world = MovingTexture(**settings)
        starts = [Start("hall", picture()), Start("yard", picture((20, 90, 40)), "a yard")]
        server = PlayServer(world, starts, HEIGHT, WIDTH, title="a moving texture")
        loop = asyncio.new_event_loop()
        addresses: list[str] = []
        listening, stop = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with server.listening() as address:
                addresses.append(address)
                listening.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            loop.close()

        stops.append(end)
        assert listening.wait(10)
        return Running(server, world, addresses[0])

    yield run
    for stop in stops:
        stop()


class BankOfOne(CaptionEncoder):
    """A bank that holds made-up states for the empty caption, so that no sentence encoder is fetched."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self._states_PLC = torch.randn(1, self.length, 384, generator=generator).half()
        self._mask_PL = torch.arange(self.length)[None] < 5
        self._rows = {"": 0}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of random weights, with a start frame."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    vae = GameplayVAE(block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8))
    pipeline = GameCraftPipeline(GameCraftTransformer.of_size("tiny"), vae, BankOfOne(), 32, 48, num_inference_steps=2)
    pipeline.save_pretrained(folder)
    (folder / "starts").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "starts" / "hall.png")
    (folder / "starts" / "starts.json").write_text('{"schema_version": 1, "captions": {"hall": ""}}')
    return folder
