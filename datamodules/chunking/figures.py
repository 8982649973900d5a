"""Figures of a page: what a layout network sees on a page that is a picture, and pictures that other pages embed.

Drawings of pages with a text layer are not looked for: their words are the layer's, and stay where they stand.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ...registry import UserError
from .layout.text_lines import Region
from .layout_network import SeenRegion
from .ocr import OcrLine, OcrPage

if TYPE_CHECKING:
    from PIL import Image

    from .pages import Document, Page

MIN_SHARE = 0.02  # of the page: a smaller picture is a logo or a sign
MAX_SHARE = 0.6  # a larger one is the page's ground
MIN_INK = 0.004  # of a figure's area, outside its words: a region without is text
LONG_LINE = 6  # words; a figure's labels are shorter
MAX_LONG = 0.4  # share of a figure's letters that stand in long lines
MAX_SAME = 0.5  # of the smaller one: two figures that share more are one
MAX_OBJECTS = 2000
READ_A_PAGE = 1 / 16  # pictures of a document that are read, a page: reading one takes as long as several pages
READ_AT_LEAST = 3
MAX_LOOKED_THROUGH = 2000  # pages whose pictures are counted
CAPTION = re.compile(
    r"(?:figure|figura|fig|abbildung|abb|bild|image|imagen|chart|diagram|exhibit|schéma|esquema|plate)\.?\s*\d",
    re.IGNORECASE,
)

_chosen: WeakKeyDictionary[Document, dict[int, list[Region]]] = WeakKeyDictionary()
_passed: WeakKeyDictionary[Document, dict[int, int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Figure:
    """A figure's place on the shown page, in points.

    Attributes:
        region: its box.
        text: what was read in an embedded picture, a line each; empty where the page's own words tell it.
    """

    region: Region
    text: str = ""


def figures_of(page: Page) -> tuple[Figure, ...]:
    """The figures of a page from top to bottom; none where the document has no OCR.

    Raises:
        UserError: if the layout network is needed, and is neither in the cache nor can be fetched.
    """
    ocr = page.document.ocr
    if ocr is None or ocr.mode == "never":
        return ()
    if page.read is None:
        found = [Figure(region, _inner_text(page, region)) for region in embedded_pictures(page)]
    else:
        picture = page.picture(page.read.scale * 72)
        seen = ocr.network.regions(stretched(picture)) if page.read.lines else []
        found = [Figure(region) for region in drawn_figures(seen, page.read, picture)]
    return tuple(sorted(found, key=lambda f: (f.region.y0, f.region.x0)))


def stretched(picture: Image.Image) -> Image.Image:
    """A picture with white paper and black ink: on grey paper the network takes text for figures."""
    from PIL import Image

    grey_HW = np.asarray(picture.convert("L"), np.float32)
    ink, paper = np.percentile(grey_HW, (1, 80))
    level_HW = ((grey_HW - ink) / max(float(paper - ink), 1.0) * 1.15).clip(0, 1) * 255
    return Image.fromarray(level_HW.astype(np.uint8)).convert("RGB")


def drawn_figures(seen: Sequence[SeenRegion], read: OcrPage, picture: Image.Image) -> list[Region]:
    """Regions in points that the network calls figures and that hold more than words.

    Args:
        seen: on the picture, the surest first.
        read: what was read of it.
        picture: of the page.
    """
    ink_HW = np.asarray(stretched(picture).convert("L")) < 128
    for line in read.lines:
        xs, ys = [x for x, _ in line.corners], [y for _, y in line.corners]
        ink_HW[max(0, int(min(ys))) : int(max(ys)) + 1, max(0, int(min(xs))) : int(max(xs)) + 1] = False
    area = picture.width * picture.height
    tables = [s.region for s in seen if s.kind == "table"]
    kept: list[Region] = []
    for one in seen:
        r = one.region
        part_HW = ink_HW[int(r.y0) : int(r.y1) + 1, int(r.x0) : int(r.x1) + 1]
        if one.kind != "figure" or not part_HW.size or not MIN_SHARE <= part_HW.size / area <= MAX_SHARE:
            continue
        inner = [line for line in read.lines if r.holds(*_middle(line))]
        letters = sum(len(line.text) for line in inner)
        long = sum(len(line.text) for line in inner if line.text.count(" ") + 1 >= LONG_LINE)
        if part_HW.mean() < MIN_INK or long > MAX_LONG * letters:
            continue
        if any(shared(r, other) > MAX_SAME for other in (*kept, *tables)):
            continue
        kept.append(r)
    return [Region(r.x0 / read.scale, r.y0 / read.scale, r.x1 / read.scale, r.y1 / read.scale) for r in kept]


def embedded_pictures(page: Page) -> list[Region]:
    """Places of pictures that a page embeds, between `MIN_SHARE` and `MAX_SHARE` of it, without those inside others."""
    import pypdfium2.raw as pdfium

    from .pages import display_transform

    with page.document.handle(page.number) as handle:
        transform = display_transform(handle, page.width, page.height)
        count = min(pdfium.FPDFPage_CountObjects(handle.raw), MAX_OBJECTS)
        found = [
            region
            for k in range(count)
            if (region := _place(pdfium, pdfium.FPDFPage_GetObject(handle.raw, k), transform)) is not None
        ]
    area = page.width * page.height
    shown = [Region(max(r.x0, 0.0), max(r.y0, 0.0), min(r.x1, page.width), min(r.y1, page.height)) for r in found]
    kept: list[Region] = []
    for r in sorted(shown, key=_area, reverse=True):
        if MIN_SHARE <= _area(r) / area <= MAX_SHARE and all(shared(r, other) <= MAX_SAME for other in kept):
            kept.append(r)
    return kept


def pictures_to_read(document: Document) -> dict[int, list[Region]]:
    """Page number -> places of those embedded pictures whose words are read: the largest of the document.

    Their number grows with the document's pages, so that a manual with a picture on every page is not mostly read off
    pictures; which ones they are depends on the file alone, so a call that goes on after a kill reads the same.
    """
    if document not in _chosen:
        found: list[tuple[float, int, Region]] = []
        for number in range(1, min(document.num_pages, MAX_LOOKED_THROUGH) + 1):
            with contextlib.suppress(UserError):  # a damaged page has none, and is told of when it is read
                found += [(-_area(r), number, r) for r in embedded_pictures(document.page(number))]
        found.sort(key=lambda held: (held[0], held[1], held[2].y0, held[2].x0))
        allowed = READ_AT_LEAST + int(document.num_pages * READ_A_PAGE)
        chosen: dict[int, list[Region]] = {}
        for _, number, region in found[:allowed]:
            chosen.setdefault(number, []).append(region)
        _chosen[document] = chosen
        _passed[document] = dict(Counter(number for _, number, _ in found[allowed:]))
    return _chosen[document]


def pictures_passed_over(document: Document, numbers: Sequence[int]) -> int:
    """How many embedded pictures of these pages are not read, since the document has larger ones enough."""
    pictures_to_read(document)
    return sum(_passed[document].get(n, 0) for n in numbers)


def embedded_text(page: Page) -> str:
    """What was read in the pictures that a page with a text layer embeds."""
    if page.read is not None:
        return ""
    return "\n".join(figure.text for figure in figures_of(page) if figure.text)


def is_caption(text: str) -> bool:
    """Whether a paragraph names a figure by its number."""
    return CAPTION.match(text.strip()) is not None


def shared(a: Region, b: Region) -> float:
    """Share of the smaller one that both cover."""
    inside = _area(Region(max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1)))
    if a.x0 > b.x1 or b.x0 > a.x1 or a.y0 > b.y1 or b.y0 > a.y1:
        return 0.0
    return inside / max(min(_area(a), _area(b)), 1e-6)


def _place(pdfium: Any, item: Any, transform: np.ndarray) -> Region | None:
    import ctypes

    if pdfium.FPDFPageObj_GetType(item) != pdfium.FPDF_PAGEOBJ_IMAGE:
        return None
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not pdfium.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return None
    corners = transform @ np.array([[left.value, right.value], [bottom.value, top.value], [1.0, 1.0]])
    (x0, x1), (y0, y1) = np.sort(corners, axis=1)
    return Region(float(x0), float(y0), float(x1), float(y1))


def _inner_text(page: Page, region: Region) -> str:
    """What is read in a picture, unless it is passed over or the text layer has words there already."""
    from .words import words_of

    ocr = page.document.ocr
    if ocr is None or region not in pictures_to_read(page.document).get(page.number, []):
        return ""
    if any(region.holds(*word.middle) for word in words_of(page)):
        return ""
    return "\n".join(line.text for line in ocr.read_crop(page, region).lines)


def _middle(line: OcrLine) -> tuple[float, float]:
    return sum(x for x, _ in line.corners) / 4, sum(y for _, y in line.corners) / 4


def _area(r: Region) -> float:
    return max(r.x1 - r.x0, 0.0) * max(r.y1 - r.y0, 0.0)
