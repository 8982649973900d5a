"""Pictures as the bytes that records hold."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy

from ...registry import UserError

JPEG_QUALITY = 90


def encode(picture_HW3: numpy.ndarray) -> bytes:
    """A picture, uint8 [H, W, 3], as JPEG bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture_HW3).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def picture_size(image: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture, from its head.

    Raises:
        UserError: if it is no picture.
    """
    size: tuple[int, int] = opened(image, lambda picture: picture.size)
    return size


def resized(image: bytes, size: tuple[int, int]) -> bytes:
    """An encoded picture at another width and height, as JPEG.

    Raises:
        UserError: if it is no picture.
    """
    return encode(numpy.asarray(opened(image, lambda picture: picture.convert("RGB").resize(size))))


def opened(image: bytes, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of PIL's picture of these bytes.

    Raises:
        UserError: if they are no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return use(Image.open(io.BytesIO(image)))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"a record's picture can't be read: {error}\nGenerate or copy that file again.") from None
