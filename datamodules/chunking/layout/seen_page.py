"""One page as the trained chunker sees it, at training time and at run time alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..pages import Page
from .blocks import Block, page_blocks
from .features import own_features
from .items import Item, items_of
from .pictures import crops
from .style import DocumentStyle

MAX_ITEMS = 600  # of one page; a page of more is a drawing with words all over, and what follows is not judged


@dataclass(frozen=True)
class SeenPage:
    """Axis legend: N item, F number, H pixels down, W pixels across.

    Attributes:
        number: page number, from 1.
        blocks: what stands on the page, in reading order.
        items: what is judged, `block` numbering `blocks`.
        own_NF: features.own_features.
        crops_NHW: pictures.crops.
    """

    number: int
    blocks: tuple[Block, ...]
    items: tuple[Item, ...]
    own_NF: np.ndarray
    crops_NHW: np.ndarray

    @classmethod
    def of(cls, page: Page, style: DocumentStyle) -> SeenPage:
        """A page of a document of this style."""
        blocks = page_blocks(page)
        items = items_of(blocks)[:MAX_ITEMS]
        strokes = blocks[0].frame.strokes(page.strokes) if blocks else []
        own_NF = own_features(items, blocks, style, strokes)
        return cls(page.number, tuple(blocks), tuple(items), own_NF, crops(page, items))
