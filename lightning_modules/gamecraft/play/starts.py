"""Start frames: the ones that come with the weights, and pictures that a player brings."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ....datamodules.files import atomic_write, write_json
from ....datamodules.gamecraft.captions import colour_of, light_of
from ....datamodules.gamecraft.manifest import Manifest
from ....registry import COMMANDS, UserError

SCHEMA_VERSION = 1
FOLDER = "starts"
INDEX = "starts.json"
MAX_PIXELS = 50_000_000
MIN_MEAN, MIN_SPREAD = 45.0, 22.0  # grey levels; Freedoom has rooms that are all but black
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")


@dataclass(frozen=True)
class Start:
    """A first frame.

    Attributes:
        name: what a player picks it by.
        image: RGB picture of any size.
        caption: what the model is told about it.
    """

    name: str
    image: Image.Image
    caption: str = ""


def bundled_starts(weights: Path) -> list[Start]:
    """The start frames in `weights`/starts: its pictures by name; starts.json, if there, holds their captions.

    Raises:
        UserError: if one can't be read, or the captions are of another version.
    """
    folder = weights / FOLDER
    index = folder / INDEX
    captions = _captions(index) if index.is_file() else {}
    return [
        Start(file.stem, read_picture(file), str(captions.get(file.stem, ""))) for file in sorted(folder.glob("*.png"))
    ]


def _captions(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{index}: of version {content['schema_version']}, not {SCHEMA_VERSION}")
        return {str(name): str(caption) for name, caption in content["captions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: can't be read: {error}") from None


def read_picture(source: Path | bytes) -> Image.Image:
    """A picture file, or its bytes, as an upright RGB image.

    Raises:
        UserError: if it is no picture, or has more than 50 million pixels.
    """
    name = source if isinstance(source, Path) else "the picture"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{name}: {image.width} x {image.height} is too large; at most 50 million pixels")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise UserError(f"{name}: is no picture that can be read ({', '.join(FORMATS)})") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow's readers raise for broken files
        raise UserError(f"{name}: can't be read: {error}") from None


def nearest_caption(wanted: str, known: Sequence[str]) -> str:
    """The known caption that shares most words with the wanted one; a wanted one that is known is itself.

    A release knows the captions that it was trained with; others would need the sentence encoder.
    """
    words = _words(wanted)
    return max(known, key=lambda caption: (len(words & _words(caption)), caption == ""), default="")


def caption_of(image: Image.Image, known: Sequence[str]) -> str:
    """The known caption that fits a picture's light and colour, of somebody walking."""
    frame_1HW3 = np.asarray(image.convert("RGB"))[None]
    return nearest_caption(f"{light_of(frame_1HW3)} {colour_of(frame_1HW3)} indoors walking", known)


def _words(caption: str) -> set[str]:
    return set(caption.replace(",", " ").split())


@COMMANDS.register("gamecraft starts", paper="2506.17201")
def choose_starts(data: Path, weights: Path, count: int = 8, seed: int = 0) -> None:
    """Put start frames for `gamecraft play` beside weights: first frames of recorded episodes, each of another map.

    Args:
        data: folder of recorded shards, such as DATA/test.
        weights: folder of a pipeline; its folder starts/ is replaced.
        count: how many; fewer if there are not so many maps.
        seed: which ones.

    Raises:
        UserError: if there are no episodes or no weights.
    """
    from ..captions_encoder import CaptionEncoder
    from ..pipeline import BANK

    if not (weights / "model_index.json").is_file():
        raise UserError(f"{weights}: holds no pipeline (model_index.json is missing)")
    known = CaptionEncoder.load(weights / BANK).known
    manifest = Manifest.open(data)
    order = np.random.default_rng(seed).permutation(len(manifest)).tolist()
    chosen: dict[str, tuple[Image.Image, str]] = {}
    for _, episode in manifest.read_all(order):
        name, frame_HW3 = str(episode.meta.get("map", episode.key)).lower(), episode.frames[0]
        if len(chosen) == count:
            break
        if name not in chosen and frame_HW3.mean() > MIN_MEAN and frame_HW3.std() > MIN_SPREAD:
            chosen[name] = Image.fromarray(frame_HW3), nearest_caption(episode.caption, known)
    if not chosen:
        raise UserError(f"{data}: holds no episode that is bright enough to start from")
    folder = weights / FOLDER
    for old in folder.glob("*.png"):
        old.unlink()
    for name, (image, _) in chosen.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            image.save(temporary, "PNG")
    content = {"schema_version": SCHEMA_VERSION, "captions": {name: chosen[name][1] for name in sorted(chosen)}}
    write_json(folder / INDEX, content)
    print(f"{folder}: {len(chosen)} start frames")
