"""One self-contained page: each page's picture with its chunks as coloured boxes, beside their text and headings."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ...datamodules.chunking.chunks import Chunk
from ...datamodules.chunking.pages import Document, Page
from ...datamodules.files import atomic_write
from .reading import DocumentResult

TEMPLATE = Path(__file__).with_name("view.html")
MARK = "<!-- pages -->"
DPI = 80
JPEG_QUALITY = 70
HUE_STEP = 137  # degrees: neighbours get far colours


def write_view(path: Path, results: Sequence[tuple[Path, DocumentResult]]) -> None:
    """Write the page, one picture at a time, so that a long document takes no more memory than a short one.

    Args:
        path: HTML file.
        results: each document's file and what it gave.
    """
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition(MARK)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as out:
        out.write(before)
        for file, result in results:
            out.write(f"<h1>{html.escape(result.source)}</h1>\n")
            with Document(file) as document:
                _document(out, document, result)
        out.write(after)


def _document(out: IO[str], document: Document, result: DocumentResult) -> None:
    by_page: dict[int, list[tuple[int, Chunk]]] = {n: [] for n in result.pages}
    for number, chunk in enumerate(result.chunks, 1):
        for standing in range(chunk.page_start, chunk.page_end + 1):
            by_page.setdefault(standing, []).append((number, chunk))
    for page_number in result.pages:
        page = document.page(page_number)
        held = by_page[page_number]
        boxes = "".join(_box(page, number, chunk) for number, chunk in held)
        texts = "".join(_text(number, chunk) for number, chunk in held)
        out.write(
            f'<section class="page" data-page="{page_number}"><div class="number">page {page_number}</div>'
            f'<div class="sheet"><img loading="lazy" alt="page {page_number}" src="{_picture(page)}">{boxes}</div>'
            f'<div class="texts">{texts}</div></section>\n'
        )


def _picture(page: Page) -> str:
    data = io.BytesIO()
    page.picture(DPI).save(data, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _box(page: Page, number: int, chunk: Chunk) -> str:
    shown = []
    for k, box in enumerate(b for b in chunk.boxes if b.page == page.number):
        left, top = 100 * box.x0 / page.width, 100 * box.y0 / page.height
        width, height = 100 * (box.x1 - box.x0) / page.width, 100 * (box.y1 - box.y0) / page.height
        place = f"left:{left:.3f}%;top:{top:.3f}%;width:{width:.3f}%;height:{height:.3f}%"
        label = f"<b>{number}</b>" if k == 0 else ""
        hue = number * HUE_STEP % 360
        shown.append(f'<div class="box" data-chunk="{chunk.id}" style="--hue:{hue};{place}">{label}</div>')
    return "".join(shown)


def _text(number: int, chunk: Chunk) -> str:
    pages = f"page {chunk.page_start}" + (f"–{chunk.page_end}" if chunk.page_end > chunk.page_start else "")
    heads = html.escape(" > ".join(chunk.headings))
    about = f"{number} · {chunk.kind} · {chunk.continues} · {pages}"
    return (
        f'<article class="chunk" data-chunk="{chunk.id}" style="--hue:{number * HUE_STEP % 360}"><header>{about}<br>'
        f"{heads}</header><pre>{html.escape(chunk.text)}</pre></article>"
    )
