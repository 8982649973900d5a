"""Scanned-looking copies: each page a slightly turned, blurred, noisy JPEG picture, without any text layer."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..chunks import Box
from .truth import Block, Cell, Part, TypesetDocument


@dataclass(frozen=True)
class ScanLook:
    """How one page was scanned; a pure function of seed and page.

    Attributes:
        angle_deg: turn about the page's centre, counterclockwise as one sees it.
        blur_px: standard deviation of the blur at 150 dpi, pixels.
        noise: standard deviation of the noise, grey levels of 255.
        paper, ink: grey levels of white and black.
        quality: of the JPEG picture.
    """

    angle_deg: float
    blur_px: float
    noise: float
    paper: float
    ink: float
    quality: int


def scan_look(seed: int, page: int) -> ScanLook:
    """The look of a page, numbered from 1."""
    sheet = random.Random(seed)
    blur, noise, paper = sheet.uniform(0.3, 0.8), sheet.uniform(2, 9), sheet.uniform(228, 253)
    ink, quality = sheet.uniform(5, 60), sheet.randint(45, 85)
    turn = random.Random(seed * 100_003 + page).uniform(-0.8, 0.8)
    return ScanLook(turn, blur, noise, paper, ink, quality)


def scanned(pdf: bytes, seed: int, dpi: int = 150) -> bytes:
    """An image-only copy of a PDF, with pages of the same size.

    Args:
        pdf: any PDF that pdfium reads.
        seed: of the looks and of the noise.
        dpi: resolution of the pictures.
    """
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    try:
        pages = []
        for index in range(len(document)):
            page = document[index]
            grey = np.asarray(page.render(scale=dpi / 72, grayscale=True).to_pil().convert("L"))
            look = scan_look(seed, index + 1)
            jpeg = _degraded(grey, look, dpi, np.random.default_rng((seed, index)))
            pages.append((page.get_size(), grey.shape[1], grey.shape[0], jpeg))
    finally:
        document.close()
    return _picture_pdf(pages)


def scan_document(document: TypesetDocument, seed: int, dpi: int = 150) -> TypesetDocument:
    """A scanned-looking copy with the same truth; the boxes are those around the turned ones."""
    truth = document.truth

    def moved(box: Box) -> Box:
        width, height = truth.page_sizes[box.page - 1]
        return turned(box, width, height, scan_look(seed, box.page).angle_deg)

    def moved_part(part: Part) -> Part:
        cells = tuple(Cell(c.text, moved(c.box) if c.box else None) for c in part.cells)
        return replace(part, box=moved(part.box), cells=cells)

    def moved_block(block: Block) -> Block:
        return replace(block, parts=tuple(moved_part(part) for part in block.parts))

    blocks = tuple(moved_block(block) for block in truth.blocks)
    return TypesetDocument(scanned(document.pdf, seed, dpi), replace(truth, blocks=blocks))


def turned(box: Box, width: float, height: float, angle_deg: float) -> Box:
    """The box around a box that was turned with its page, counterclockwise about the page's centre; PDF points."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    corners = [(x - width / 2, y - height / 2) for x in (box.x0, box.x1) for y in (box.y0, box.y1)]
    xs = [width / 2 + x * cos + y * sin for x, y in corners]
    ys = [height / 2 - x * sin + y * cos for x, y in corners]
    return Box(box.page, min(xs), min(ys), max(xs), max(ys))


def _degraded(grey_HW: np.ndarray, look: ScanLook, dpi: int, rng: np.random.Generator) -> bytes:
    from PIL import Image, ImageFilter

    picture = Image.fromarray(np.ascontiguousarray(grey_HW))
    picture = picture.rotate(look.angle_deg, resample=Image.Resampling.BICUBIC, fillcolor=255)
    picture = picture.filter(ImageFilter.GaussianBlur(look.blur_px * dpi / 150))
    level_HW = look.ink + np.asarray(picture, np.float32) / 255 * (look.paper - look.ink)
    level_HW += rng.standard_normal(level_HW.shape, np.float32) * look.noise
    buffer = io.BytesIO()
    Image.fromarray(level_HW.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=look.quality)
    return buffer.getvalue()


def _picture_pdf(pages: list[tuple[tuple[float, float], int, int, bytes]]) -> bytes:
    """A PDF of one grey JPEG picture a page: ((width, height) in points, pixels across, pixels down, JPEG)."""
    kids = " ".join(f"{3 + 3 * k} 0 R" for k in range(len(pages)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode()]
    for k, ((width, height), across, down, jpeg) in enumerate(pages):
        draw = f"q {width:.4f} 0 0 {height:.4f} 0 0 cm /P Do Q".encode()
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.4f} {height:.4f}] /Contents {4 + 3 * k} 0 R "
            f"/Resources << /XObject << /P {5 + 3 * k} 0 R >> >> >>".encode()
        )
        objects.append(_stream("", draw))
        kind = f"/Type /XObject /Subtype /Image /Width {across} /Height {down} /ColorSpace /DeviceGray"
        objects.append(_stream(f"{kind} /BitsPerComponent 8 /Filter /DCTDecode", jpeg))
    return b"".join(_file(objects))


def _stream(entries: str, content: bytes) -> bytes:
    return f"<< {entries} /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream"


def _file(objects: list[bytes]) -> Iterator[bytes]:
    written = b"%PDF-1.4\n"
    yield written
    position, places = len(written), []
    for number, content in enumerate(objects, 1):
        places.append(position)
        written = f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
        position += len(written)
        yield written
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    yield f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode()
    yield f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{position}\n%%EOF\n".encode()
