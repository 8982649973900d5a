"""Scanned-looking copies hold pictures only, and the moved boxes lie over the ink."""

from __future__ import annotations

import numpy as np
import pytest

from fulgurite.datamodules.chunking.chunks import Box
from fulgurite.datamodules.chunking.typeset.document import typeset_document
from fulgurite.datamodules.chunking.typeset.scan import scan_document, scan_look, scanned, turned

pytest.importorskip("typst")
pdfium = pytest.importorskip("pypdfium2")


def test_copy_has_the_same_pages_and_no_text() -> None:
    document = typeset_document(2, num_pages=2)
    copy = pdfium.PdfDocument(scanned(document.pdf, seed=1, dpi=100))
    assert len(copy) == 2
    for page, (width, height) in zip(copy, document.truth.page_sizes, strict=True):
        assert page.get_textpage().get_text_range() == ""
        assert page.get_size() == pytest.approx((width, height), abs=0.01)


def test_same_seed_same_bytes_other_seed_other_look() -> None:
    pdf = typeset_document(2, num_pages=1).pdf
    assert scanned(pdf, 1, 80) == scanned(pdf, 1, 80) != scanned(pdf, 2, 80)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_moved_boxes_hold_the_ink(seed: int) -> None:
    copy = scan_document(typeset_document(seed, num_pages=2), seed, dpi=100)
    opened = pdfium.PdfDocument(copy.pdf)
    scale = 2.0
    for page in (1, 2):
        grey = np.asarray(opened[page - 1].render(scale=scale, grayscale=True).to_pil(), np.float32)
        dark = grey < 0.6 * np.median(grey)
        held = np.zeros_like(dark)
        for block, part in copy.truth.on_page(page):
            x0, y0, x1, y1 = (
                round(v * scale) for v in (part.box.x0 - 2, part.box.y0 - 2, part.box.x1 + 2, part.box.y1 + 2)
            )
            held[max(y0, 0) : y1, max(x0, 0) : x1] = True
            if len(block.text) > 20:
                assert dark[y0:y1, x0:x1].any()
        ruled = {"grid", "lines", "header"}
        if copy.truth.style["rules"] not in ruled and not copy.truth.style["header_rule"]:
            assert (dark & ~held).mean() < 0.02


def test_a_turned_box_holds_the_turned_corners() -> None:
    whole = turned(Box(1, 0, 0, 10, 10), 10, 10, 90)
    assert (whole.x0, whole.y0, whole.x1, whole.y1) == pytest.approx((0, 0, 10, 10))
    moved = turned(Box(1, 100, 50, 100, 50), 200, 100, 10)
    assert (moved.x0, moved.y0) == pytest.approx((100, 50))
    right = turned(Box(1, 200, 50, 200, 50), 200, 100, 1)
    assert right.y0 < 50  # counterclockwise: what lies at the right goes up


def test_looks_differ_between_pages_in_angle_only() -> None:
    first, second = scan_look(4, 1), scan_look(4, 2)
    assert first.angle_deg != second.angle_deg and first.paper == second.paper
