"""Figures: what counts as one on a picture, embedded pictures, and the chunk that comes of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from fulgurite.datamodules.chunking.figures import (
    drawn_figures,
    embedded_pictures,
    figures_of,
    is_caption,
    pictures_passed_over,
    pictures_to_read,
    stretched,
)
from fulgurite.datamodules.chunking.layout.blocks import page_blocks
from fulgurite.datamodules.chunking.layout.text_lines import Region
from fulgurite.datamodules.chunking.layout.turned import Frame
from fulgurite.datamodules.chunking.layout_network import LayoutNetwork, SeenRegion
from fulgurite.datamodules.chunking.ocr import OcrLine, OcrPage, PageOcr
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.words import Word
from fulgurite.datamodules.sources.download import is_cached

pytest.importorskip("pypdfium2")
Image = pytest.importorskip("PIL.Image")
Draw = pytest.importorskip("PIL.ImageDraw")


def _line(text: str, x: float, y: float, width: float = 300) -> OcrLine:
    corners = ((x, y), (x + width, y), (x + width, y + 20), (x, y + 20))
    return OcrLine(text, corners, tuple((k + 0.5) / len(text) for k in range(len(text))))


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a text layer and an embedded picture in which three words are written, above its caption."""
    typst = pytest.importorskip("typst")
    folder = tmp_path_factory.mktemp("pictured")
    drawn = Image.new("RGB", (600, 300), "white")
    pen = Draw.Draw(drawn)
    for k, label in enumerate(("PUMP", "FILTER", "VALVE")):
        pen.rectangle((20 + 200 * k, 100, 170 + 200 * k, 200), outline="black", width=4)
        pen.text((50 + 200 * k, 132), label, fill="black", font_size=30)
    drawn.save(folder / "drawn.png")
    (folder / "page.typ").write_text(
        "#set page(width: 400pt, height: 500pt, margin: 40pt)\n#set text(size: 11pt)\n"
        'The water goes through three parts before it reaches the tank.\n\n#image("drawn.png", width: 260pt)\n\n'
        "Figure 3: The way of the water\n\n#v(30pt)\nClean the filter once a month, or more often if water is hard.\n",
        encoding="utf-8",
    )
    (folder / "page.pdf").write_bytes(typst.compile(str(folder / "page.typ"), format="pdf"))
    return folder / "page.pdf"


def test_a_figure_holds_more_than_words() -> None:
    picture = Image.new("RGB", (1000, 1400), "white")
    pen = Draw.Draw(picture)
    pen.rectangle((100, 100, 500, 400), outline="black", width=5)
    lines = (_line("pump", 150, 150), *(_line("one long line of plain words here", 100, y) for y in (600, 640, 680)))
    for line in lines:
        pen.text(line.corners[0], line.text, fill="black")
    drawn, text = Region(90, 90, 510, 410), Region(90, 590, 420, 710)
    read = OcrPage(lines, 2.0, 0.0)
    seen = [SeenRegion("figure", drawn, 0.9), SeenRegion("figure", text, 0.8), SeenRegion("figure", drawn, 0.6)]
    assert drawn_figures(seen, read, picture) == [Region(45, 45, 255, 205)]
    assert drawn_figures([SeenRegion("table", drawn, 0.95), *seen], read, picture) == []


def test_grey_paper_becomes_white_and_ink_black() -> None:
    grey = np.full((50, 50), 230, np.uint8)
    grey[10:20, 10:40] = 60
    levels = np.asarray(stretched(Image.fromarray(grey)).convert("L"))
    assert levels[0, 0] == 255 and levels[15, 20] == 0


@pytest.mark.parametrize("text", ["Figure 3: Way", "Fig. 12", "Abb. 4 Pumpe", "FIGURE 1."])
def test_captions(text: str) -> None:
    assert is_caption(text)


@pytest.mark.parametrize("text", ["Figures are drawn", "See figure 3", "Configure 3 pumps"])
def test_no_captions(text: str) -> None:
    assert not is_caption(text)


def test_embedded_picture_becomes_a_figure_with_caption_and_words(pictured: Path, tmp_path: Path) -> None:
    pytest.importorskip("rapidocr", reason="rapidocr is not installed: pip install 'fulgurite[chunking]'")
    with Document(pictured, PageOcr("auto", tmp_path)) as document:
        page = document.page(1)
        (place,) = embedded_pictures(page)
        assert place.x1 - place.x0 == pytest.approx(260, abs=1) and place.y1 - place.y0 == pytest.approx(130, abs=1)
        blocks = page_blocks(page)
        (figure,) = [b for b in blocks if b.figure]
        assert figure.text.splitlines()[0] == "Figure 3: The way of the water"
        assert {"PUMP", "FILTER", "VALVE"} <= set(figure.text.split())
        assert figure.figure[0] == place and len(figure.figure) == 2
        assert not any("Figure 3" in b.text for b in blocks if not b.figure)
        assert [b.text[:5] for b in blocks if not b.figure] == ["The w", "Clean"]


def test_the_largest_pictures_of_a_document_are_read_and_the_others_counted(tmp_path: Path) -> None:
    typst = pytest.importorskip("typst", reason="typst is not installed: pip install 'fulgurite[chunking]'")
    Image.new("RGB", (40, 20), "grey").save(tmp_path / "grey.png")
    widths = [100 + 10 * k for k in range(9)]
    pages = "#pagebreak()\n".join(f'words on page {w}\n\n#image("grey.png", width: {w}pt)\n\n' for w in widths)
    (tmp_path / "many.typ").write_text(f"#set page(width: 300pt, height: 300pt)\n{pages}", encoding="utf-8")
    (tmp_path / "many.pdf").write_bytes(typst.compile(str(tmp_path / "many.typ"), format="pdf"))
    with Document(tmp_path / "many.pdf") as document:
        chosen = pictures_to_read(document)
        assert document.num_pages == 9
        assert sorted(chosen) == [7, 8, 9], "three and one for every sixteen pages, the largest"
        assert pictures_passed_over(document, range(1, 10)) == 6
        assert pictures_passed_over(document, [1, 9]) == 1


def test_without_ocr_there_are_no_figures(pictured: Path) -> None:
    with Document(pictured) as document:
        assert figures_of(document.page(1)) == ()
        assert "Figure 3: The way of the water" in [b.text for b in page_blocks(document.page(1))]


def test_the_network_sees_a_drawing() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'fulgurite[chunking]'")
    if not is_cached("page-layout"):
        pytest.skip("the layout network is not in the cache: fulgurite fetch page-layout")
    typeset = pytest.importorskip("fulgurite.datamodules.chunking.typeset.document")
    pytest.importorskip("typst")
    made = typeset.typeset_document(9004)
    true = [p.box for block, p in made.truth.on_page(1) if block.role == "figure"]
    import pypdfium2

    picture = pypdfium2.PdfDocument(io.BytesIO(made.pdf))[0].render(scale=150 / 72).to_pil().convert("RGB")
    seen = [s.region for s in LayoutNetwork().regions(picture) if s.kind == "figure"]
    assert len(true) == 1 and len(seen) == 1
    scale = 150 / 72
    for side in ("x0", "y0", "x1", "y1"):
        assert getattr(seen[0], side) / scale == pytest.approx(getattr(true[0], side), abs=12)


def test_a_skewed_page_is_put_straight_and_back() -> None:
    words = [
        Word("word", 100.0, 700.0, 140.0, 712.0, 10.0, False, 0.8),
        Word("x", 500.0, 705.3, 506.0, 717.3, 10.0, False, 0.8),
    ]
    frame = Frame.of(words, 600.0, 800.0)
    first, second = frame.upright(words)
    assert frame.skew == pytest.approx(0.8)
    assert (first.y0 + first.y1) / 2 == pytest.approx((second.y0 + second.y1) / 2, abs=0.2), "on one line again"
    shown = frame.shown(Region(first.x0, first.y0, first.x1, first.y1))
    assert (shown.x0, shown.y0, shown.x1, shown.y1) == pytest.approx((100.0, 700.0, 140.0, 712.0), abs=0.3)
