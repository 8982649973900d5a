"""Films of played frames: .mp4 (H.264) and .gif, written frame by frame or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ....datamodules.files import atomic_write
from ....registry import UserError

SUFFIXES = (".mp4", ".gif")
SHOWN_HEIGHT = {".mp4": 448, ".gif": 192}  # smaller frames are enlarged by a whole number: players do it badly
GIF_COLOURS = 128


@contextlib.contextmanager
def film(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame (uint8 [H, W, 3]) to the film; the file appears, whole, when the block ends well.

    Small frames are enlarged, bicubic, by the largest whole factor that keeps to 448 rows (192 in a gif).

    Args:
        path: the file; its suffix picks the kind.
        fps: frames a second; a gif rounds the time of a frame to 10 ms.

    Raises:
        UserError: for another suffix, or where the file can't be written.
    """
    check_film(path)
    suffix = path.suffix.lower()
    write = _mp4 if suffix == ".mp4" else _gif

    def enlarged(frame_HW3: np.ndarray) -> Image.Image:
        image = Image.fromarray(frame_HW3)
        factor = max(1, SHOWN_HEIGHT[suffix] // image.height)
        width, height = (side * factor // 2 * 2 for side in image.size)  # H.264 wants even sides
        return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)

    try:
        with atomic_write(path) as temporary, write(temporary, fps) as add_image:
            yield lambda frame_HW3: add_image(enlarged(frame_HW3))
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None


def check_film(path: Path) -> None:
    """See that a film can have this name, before the work.

    Raises:
        UserError: if it can't.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: a film ends in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder")


@contextlib.contextmanager
def _mp4(temporary: Path, fps: float) -> Iterator[Callable[[Image.Image], None]]:
    import av

    container = av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"})
    stream: Any = container.add_stream(
        "libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "18", "preset": "veryfast"}
    )
    stream.pix_fmt = "yuv420p"
    sized = False

    def add(image: Image.Image) -> None:
        nonlocal sized
        if not sized:
            stream.width, stream.height = image.size
            sized = True
        container.mux(stream.encode(av.VideoFrame.from_image(image)))

    with container:
        yield add
        if sized:
            container.mux(stream.encode())


@contextlib.contextmanager
def _gif(temporary: Path, fps: float) -> Iterator[Callable[[Image.Image], None]]:
    frames: list[Image.Image] = []

    def add(image: Image.Image) -> None:
        frames.append(image.quantize(GIF_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    yield add
    if frames:
        duration_ms = round(100 / fps) * 10
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0)
