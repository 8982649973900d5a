"""The glyphs of a coded copy, read by pdfium: to which run each belongs, and where it stands."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from dataclasses import dataclass, field

from ..chunks import Box


@dataclass(frozen=True)
class Glyph:
    """A character as printed; box in PDF points, origin top left. A ligature's characters share a box."""

    char: str
    box: Box


@dataclass
class CodedPages:
    """What a coded copy holds.

    Attributes:
        sizes: width and height of each page, PDF points.
        glyphs: of each code, in the order in which they were drawn; white space is left out.
        frames: box of each figure's frame, by code.
    """

    sizes: list[tuple[float, float]] = field(default_factory=list)
    glyphs: dict[int, list[Glyph]] = field(default_factory=dict)
    frames: dict[int, Box] = field(default_factory=dict)


def codes_beyond(pdf: bytes, num_pages: int) -> tuple[int, set[int]]:
    """How many pages a coded copy has, and the codes of the text that stands behind page `num_pages`."""
    import pypdfium2
    import pypdfium2.raw as raw

    document = pypdfium2.PdfDocument(pdf)
    try:
        codes: set[int] = set()
        colour = [ctypes.c_uint() for _ in range(4)]
        for index in range(num_pages, len(document)):
            for drawn in document[index].get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT]):
                raw.FPDFPageObj_GetFillColor(drawn, *colour)
                codes.add(_code(colour))
        return len(document), codes
    finally:
        document.close()


def read_coded(pdf: bytes, figures: Collection[int]) -> CodedPages:
    """Read a coded copy.

    Args:
        pdf: as of `compile_pdf(…, coded=True)`.
        figures: codes of figures, whose frames are filled with their colour.
    """
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    try:
        pages = CodedPages()
        for index in range(len(document)):
            _read_page(document[index], index + 1, figures, pages)
        return pages
    finally:
        document.close()


def _read_page(page: object, number: int, figures: Collection[int], pages: CodedPages) -> None:
    import pypdfium2.raw as raw

    width, height = page.get_size()  # type: ignore[attr-defined]
    pages.sizes.append((width, height))
    text = page.get_textpage()  # type: ignore[attr-defined]
    colour = [ctypes.c_uint() for _ in range(4)]
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    for index in range(text.count_chars()):
        char = chr(raw.FPDFText_GetUnicode(text, index))
        if char.isspace() or raw.FPDFText_IsGenerated(text, index) == 1:
            continue
        raw.FPDFText_GetFillColor(text, index, *colour)
        raw.FPDFText_GetCharBox(text, index, left, right, bottom, top)
        box = Box(number, left.value, height - top.value, right.value, height - bottom.value)
        pages.glyphs.setdefault(_code(colour), []).append(Glyph(char, box))
    if figures:
        for drawn in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH]):  # type: ignore[attr-defined]
            raw.FPDFPageObj_GetFillColor(drawn, *colour)
            code = _code(colour)
            if code in figures and code not in pages.frames:
                x0, y0, x1, y1 = drawn.get_bounds()
                pages.frames[code] = Box(number, x0, height - y1, x1, height - y0)


def _code(colour: list[ctypes.c_uint]) -> int:
    red, green, blue = (c.value for c in colour[:3])
    return (red << 16) | (green << 8) | blue
