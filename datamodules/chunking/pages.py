"""PDF pages for the readers: pdfium renders and gives the text layer's glyphs, pypdf tells structure and splits.

Places are PDF points with the origin at the shown page's top left: /Rotate and the crop box are already applied. A
document is opened once and its pages are read one batch at a time, so memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import UserError, install_line
from .nested_forms import refuse_nested_forms

if TYPE_CHECKING:
    from PIL import Image

    from .ocr import OcrPage, PageOcr
    from .strokes import Stroke

MAX_PAGES = 5000  # pages of one call
MAX_FILE_BYTES = 2 << 30
MAX_DIAGNOSED_BYTES = 64 << 20
MAX_GLYPHS = 200_000  # of one page
MAX_SIDE_POINTS = 14_400  # 200 inches, the format's own limit
MAX_PIXELS = 40_000_000  # of one picture
NEEDS = install_line("chunking")
_KINDS = {b"PK\x03\x04": "a ZIP or Office file", b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture"}


@dataclass(frozen=True)
class Glyphs:
    """The glyphs of a page's text layer, in the layer's order.

    Attributes:
        text: one character a glyph; a newline where the layer ends a line.
        boxes: [N, 4] float32, x0, y0, x1, y1 of the glyph's em box.
        sizes: [N] float32, type size in points.
        bold: [N] bool.
        angles: [N] float32, reading direction in degrees, 0 for text that is upright on the shown page.
    """

    text: str
    boxes: np.ndarray
    sizes: np.ndarray
    bold: np.ndarray
    angles: np.ndarray


class Page:
    """One page, read when it is asked for.

    Args:
        document: where it stands.
        number: page number, from 1.
    """

    def __init__(self, document: Document, number: int) -> None:
        self.document = document
        self.number = number
        with document.handle(number) as page:
            width, height = page.get_size()
        if not (0 < width <= MAX_SIDE_POINTS and 0 < height <= MAX_SIDE_POINTS):
            raise UserError(
                f"{document.path}: page {number} is {width:.0f} by {height:.0f} points\n"
                f"A side of a PDF page has at most {MAX_SIDE_POINTS}. Leave it out with --pages."
            )
        self.width, self.height = float(width), float(height)

    @cached_property
    def layer(self) -> Glyphs:
        """Glyphs of the text layer; none where the page is a picture."""
        from .text_layer import read_glyphs

        with self.document.handle(self.number) as page:
            return read_glyphs(page, self.width, self.height)

    @cached_property
    def read(self) -> OcrPage | None:
        """What was read off the page's picture; None where the text layer is taken, or the document has no OCR.

        Raises:
            UserError: if the page has to be read and the packages for that are missing.
        """
        ocr = self.document.ocr
        return ocr.read(self) if ocr is not None and ocr.wants(self) else None

    @cached_property
    def glyphs(self) -> Glyphs:
        """Glyphs of the text layer, or those that were read off the page's picture."""
        if self.read is None:
            return self.layer
        from .ocr_glyphs import glyphs_of

        return glyphs_of(self.read)

    @cached_property
    def text(self) -> str:
        """The glyphs as a string, lines ended by newlines."""
        return self.glyphs.text

    @cached_property
    def strokes(self) -> tuple[Stroke, ...]:
        """Straight horizontal and vertical strokes that the page draws, or that its picture shows."""
        if self.read is not None:
            from .picture_strokes import picture_strokes

            return picture_strokes(self.picture(self.read.scale * 72), self.read)
        from .strokes import read_strokes

        with self.document.handle(self.number) as page:
            return read_strokes(page, self.width, self.height)

    def picture(self, dpi: float = 150) -> Image.Image:
        """The page as shown, RGB; a page too big for the asked resolution is drawn at a lower one."""
        scale = min(dpi / 72, (MAX_PIXELS / (self.width * self.height)) ** 0.5)
        with self.document.handle(self.number) as page:
            image: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
        return image


@dataclass(frozen=True)
class PageBatch:
    """Consecutive pages of one document.

    Attributes:
        document: where they stand.
        pages: the pages, in order.
    """

    document: Document
    pages: tuple[Page, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Page numbers, from 1."""
        return tuple(p.number for p in self.pages)

    def halves(self) -> tuple[PageBatch, PageBatch]:
        """The batch in two, the first at least as long as the second, which is not empty for two pages and more."""
        cut = (len(self.pages) + 1) // 2
        return PageBatch(self.document, self.pages[:cut]), PageBatch(self.document, self.pages[cut:])


class Document:
    """An open PDF.

    Args:
        path: the file; an owner's restriction or an empty password does not stop it.
        ocr: reads pages that are pictures; None leaves them without text.

    Raises:
        UserError: if it is no PDF, damaged, empty, too big, or needs a password.
    """

    def __init__(self, path: Path, ocr: PageOcr | None = None) -> None:
        self.path, self.ocr = path, ocr
        self._pdf = _open(path)
        self.num_pages = len(self._pdf)
        if self.num_pages < 1:
            raise UserError(f"{path}: the PDF has no pages")

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._pdf.close()

    @cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @cached_property
    def title(self) -> str:
        """Title in the file's metadata, single-spaced; may be empty."""
        return " ".join(str(self._pdf.get_metadata_dict().get("Title", "")).split())[:200]

    def handle(self, number: int) -> _OpenPage:
        """Pdfium's page, open as long as the `with` block lasts.

        Raises:
            UserError: if the page is damaged.
        """
        return _OpenPage(self, self._pdf, number)

    def page(self, number: int) -> Page:
        """A page by its number, from 1."""
        return Page(self, number)

    def batches(self, numbers: Sequence[int], size: int) -> Iterator[PageBatch]:
        """The pages `numbers` in batches of `size`; the last may be shorter."""
        for start in range(0, len(numbers), size):
            yield PageBatch(self, tuple(self.page(n) for n in numbers[start : start + size]))

    def part(self, numbers: Sequence[int]) -> bytes:
        """A PDF of these pages alone, for servers that take one in the place of pictures.

        Raises:
            UserError: if pypdf cannot split the file.
        """
        import pypdf

        try:
            reader = pypdf.PdfReader(self.path)
            if reader.is_encrypted:
                reader.decrypt("")
            writer = pypdf.PdfWriter()
            for number in numbers:
                writer.add_page(reader.pages[number - 1])
            out = io.BytesIO()
            writer.write(out)
        except Exception as error:  # pypdf raises what the file's damage leads to
            raise UserError(f"{self.path}: can't be split into pages: {_short(error)}") from None
        return out.getvalue()

    def outline(self) -> list[tuple[int, str, int]]:
        """The bookmarks: depth from 1, title, page number; empty where there are none or they are damaged."""
        import pypdfium2

        found: list[tuple[int, str, int]] = []
        try:
            for mark in self._pdf.get_toc(max_depth=8):
                destination = mark.get_dest()
                index = destination.get_index() if destination else None
                if index is not None:
                    found.append((mark.level + 1, " ".join(mark.get_title().split()), index + 1))
        except (pypdfium2.PdfiumError, UnicodeDecodeError):
            return []
        return found


class _OpenPage:
    def __init__(self, document: Document, pdf: Any, number: int) -> None:
        self.document, self.pdf, self.number = document, pdf, number
        self.page: Any = None

    def __enter__(self) -> Any:
        import pypdfium2

        try:
            self.page = self.pdf[self.number - 1]
        except (pypdfium2.PdfiumError, IndexError) as error:
            raise UserError(
                f"{self.document.path}: page {self.number} can't be read: {_short(error)}\nLeave it out with --pages."
            ) from None
        return self.page

    def __exit__(self, *_: object) -> None:
        if self.page is not None:
            self.page.close()


def _open(path: Path) -> Any:
    try:
        import pypdfium2
    except ImportError:
        raise UserError(f"reading PDFs needs pypdfium2 and pypdf\n{NEEDS}") from None
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: has {size / 1e9:.1f} GB, at most {MAX_FILE_BYTES / 1e9:.1f} are read")
    if b"%PDF-" not in head:
        kind = next((name for magic, name in _KINDS.items() if head.startswith(magic)), "")
        held = "it is empty" if not size else f"it is {kind}" if kind else "its first bytes are not those of one"
        raise UserError(f"{path}: is no PDF: {held}")
    refuse_nested_forms(path)
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise UserError(_diagnosis(path, size, _short(error))) from None


def _diagnosis(path: Path, size: int, said: str) -> str:
    """Why pdfium does not open a file; its own reason may be that of an earlier file, so pypdf is asked."""
    import pypdf

    with contextlib.suppress(Exception):  # pypdf raises what the file's damage leads to
        reader = pypdf.PdfReader(path) if size <= MAX_DIAGNOSED_BYTES else None
        if reader is not None and reader.is_encrypted and not reader.decrypt(""):
            return f"{path}: is encrypted, and needs a password\nSave a copy without one, then give that."
        if reader is not None and len(reader.pages) == 0:
            return f"{path}: the PDF has no pages"
    return f"{path}: is damaged or cut off: {said}\nFetch or save it again."


def parse_pages(text: str | None, num_pages: int) -> list[int]:
    """Page numbers that `1-40`, `7` or `1-3,9-` name, in order, each once; all for None.

    Raises:
        UserError: if the text is no list of ranges, a page is not in the document, or they are too many.
    """
    chosen: set[int] = set()
    for part in (text or f"1-{num_pages}").split(","):
        first, dash, last = part.strip().partition("-")
        try:
            start, end = int(first or 1), int(last or num_pages) if dash else int(first)
        except ValueError:
            raise UserError(f"--pages '{str(text)[:80]}': pages are given as 1-40, 7 or 1-3,9-") from None
        if not 1 <= start <= end:
            raise UserError(f"--pages {part.strip()[:40]}: pages go up from 1")
        if start > num_pages:
            raise UserError(f"--pages {part.strip()[:40]}: the document has {num_pages} pages")
        chosen.update(range(start, min(end, num_pages) + 1))
    if len(chosen) > MAX_PAGES:
        raise UserError(
            f"{len(chosen)} pages: one call reads at most {MAX_PAGES}\nRead it in parts: --pages 1-{MAX_PAGES} first."
        )
    return sorted(chosen)


def display_transform(page: Any, width: float, height: float) -> np.ndarray:
    """[2, 3] float64: from a page's own coordinates to points from the shown page's top left."""
    import pypdfium2.raw as pdfium

    scale = 1000  # pdfium answers in whole device pixels
    corners = []
    x, y = ctypes.c_int(), ctypes.c_int()
    for point in ((0.0, 0.0), (1000.0, 0.0), (0.0, 1000.0)):
        pdfium.FPDF_PageToDevice(page.raw, 0, 0, round(width * scale), round(height * scale), 0, *point, x, y)
        corners.append((x.value / scale, y.value / scale))
    (ox, oy), (ax, ay), (bx, by) = corners
    return np.array([[(ax - ox) / 1000, (bx - ox) / 1000, ox], [(ay - oy) / 1000, (by - oy) / 1000, oy]])


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]
