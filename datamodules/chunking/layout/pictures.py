"""Small grey pictures of what stands on a page: it is drawn once at a low resolution, and each item's crop shrunk.

Axis legend: N item, H pixels down, W pixels across.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .items import Item

if TYPE_CHECKING:
    from ..pages import Page

DPI = 48
HEIGHT, WIDTH = 16, 48
MARGIN = 6.0  # points around an item: grounds and rules beside it tell what it is


def crops(page: Page, items: Sequence[Item]) -> np.ndarray:
    """Pictures of a page's items, [N, HEIGHT, WIDTH] uint8, 0 for black; as shown, whichever way the text is turned."""
    found = np.full((len(items), HEIGHT, WIDTH), 255, np.uint8)
    if not items:
        return found
    picture = page.picture(DPI).convert("L")
    across, down = picture.width / page.width, picture.height / page.height
    for k, item in enumerate(items):
        r = item.region
        box = (
            max(0.0, (r.x0 - MARGIN) * across),
            max(0.0, (r.y0 - MARGIN) * down),
            min(float(picture.width), (r.x1 + MARGIN) * across),
            min(float(picture.height), (r.y1 + MARGIN) * down),
        )
        if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
            found[k] = np.asarray(picture.resize((WIDTH, HEIGHT), resample=2, box=box))
    return found
