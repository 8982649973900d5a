"""Pictures as the bytes that records hold."""

from __future__ import annotations

import io

import numpy

JPEG_QUALITY = 90


def encode(picture_HW3: numpy.ndarray) -> bytes:
    """A picture, uint8 [H, W, 3], as JPEG bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture_HW3).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
