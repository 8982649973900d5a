"""Forms that draw forms that draw forms: a page of a few bytes can keep pdfium drawing for ever.

pdfium can't be interrupted while it opens a page, so pypdf looks at such files before.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...registry import UserError

MAX_DRAWN = 200_000  # forms inside forms of one page
MAX_DEPTH = 24
MAX_CONTENT = 4 << 20  # bytes of a form's content that are looked at
MAX_FILE_BYTES = 256 << 20
_FORM = re.compile(rb"/Form\b|/[A-Za-z]*#[0-9A-Fa-f]")  # or a name that hides its letters
_DRAW = re.compile(rb"/([^\s/\[\]<>()]+)\s+Do\b")


def refuse_nested_forms(path: Path) -> None:
    """Look through a PDF's pages for forms that would be drawn more than `MAX_DRAWN` times, or inside themselves.

    Raises:
        UserError: if a page has such; names it.
    """
    if path.stat().st_size > MAX_FILE_BYTES or not _has_forms(path):
        return
    number = None
    # what pypdf can't follow, or not without cryptography, is left to pdfium
    with silent_pypdf(), contextlib.suppress(Exception):
        number = _endless_page(path)
    if number is not None:
        raise UserError(f"{path}: page {number} draws forms inside forms without end\nIt was made to do harm.")


@contextlib.contextmanager
def silent_pypdf() -> Iterator[None]:
    """Keep from the screen what pypdf does not call critical: it has a line for each damaged object, on every page."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _endless_page(path: Path) -> int | None:
    """Number of the first page that draws too many forms."""
    import pypdf

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted:
        reader.decrypt("")
    counts: dict[int, int] = {}
    for number, page in enumerate(reader.pages, 1):
        if sum(_drawn(form, counts, ()) for form in _forms(page).values()) > MAX_DRAWN:
            return number
    return None


def _has_forms(path: Path) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _FORM.search(data) is not None


def _forms(holder: Any) -> dict[str, Any]:
    """The forms among the resources of a page or form, by name."""
    resources = holder.get("/Resources")
    held = resources.get_object().get("/XObject") if resources is not None else None
    found = {}
    for name, reference in (held.get_object() if held is not None else {}).items():
        item = reference.get_object()
        if item is not None and item.get("/Subtype") == "/Form":
            found[name.lstrip("/")] = item
    return found


def _drawn(form: Any, counts: dict[int, int], above: tuple[int, ...]) -> int:
    """Forms that are drawn when this one is, itself included; more than `MAX_DRAWN` for one inside itself."""
    key = id(form)
    if key in above or len(above) > MAX_DEPTH:
        return MAX_DRAWN + 1
    if key not in counts:
        inner = _forms(form)
        total = 1
        if inner:
            names = [m.decode("latin-1") for m in _DRAW.findall(form.get_data()[:MAX_CONTENT])]
            for name in set(names) & inner.keys():
                total += names.count(name) * _drawn(inner[name], counts, (*above, key))
        counts[key] = min(total, MAX_DRAWN + 1)
    return counts[key]
