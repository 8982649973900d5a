"""A page that is a picture gives the words that were set on it, at their place; skipped without rapidocr."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.datamodules.chunking.ocr import OcrLine, OcrPage, PageOcr
from fulgurite.datamodules.chunking.ocr_glyphs import glyphs_of, skew_of
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.words import words_of
from fulgurite.registry import UserError

pytest.importorskip("pypdfium2")
WORDS = ["Turn", "the", "main", "valve", "clockwise", "until", "it", "stops"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `layer.pdf`, a small page with a sentence and a ruled table, and `scan.pdf`, its turned picture."""
    pytest.importorskip("rapidocr", reason="rapidocr is not installed: pip install 'fulgurite[chunking]'")
    typst = pytest.importorskip("typst")
    from fulgurite.datamodules.chunking.typeset.scan import scanned

    folder = tmp_path_factory.mktemp("scans")
    cells = "".join(f"[{c}], " for c in ("Part", "Count", "Washer", "7", "Bolt", "4"))
    (folder / "page.typ").write_text(
        "#set page(width: 300pt, height: 200pt, margin: 30pt)\n#set text(size: 11pt)\n"
        f"{' '.join(WORDS)}.\n\n#table(columns: (90pt, 60pt), {cells})\n#place(bottom)[watertight connec-tion]\n",
        encoding="utf-8",
    )
    layer = typst.compile(str(folder / "page.typ"), format="pdf")
    (folder / "layer.pdf").write_bytes(layer)
    (folder / "scan.pdf").write_bytes(scanned(layer, seed=5))
    return folder


def test_scan_gives_the_words_at_their_place(scans: Path, tmp_path: Path) -> None:
    with Document(scans / "scan.pdf", PageOcr("auto", tmp_path)) as scan, Document(scans / "layer.pdf") as layer:
        assert scan.page(1).layer.text.strip() == ""
        found = {word.text: word for word in words_of(scan.page(1))}
        for word in words_of(layer.page(1)):
            if word.text not in (*WORDS, "Washer", "Bolt", "7", "4"):
                continue
            read = found[word.text]
            assert read.middle == pytest.approx(word.middle, abs=3.5)
            assert read.size == pytest.approx(11.0, abs=1.5)
        assert {"7", "4"} <= found.keys(), "a digit alone in its cell is read too"


def test_rules_of_a_scanned_table_are_strokes(scans: Path, tmp_path: Path) -> None:
    from fulgurite.datamodules.chunking.layout.blocks import page_blocks

    with Document(scans / "scan.pdf", PageOcr("auto", tmp_path)) as scan:
        strokes = scan.page(1).strokes
        assert sum(s.horizontal for s in strokes) >= 4 and sum(not s.horizontal for s in strokes) >= 3
        tables = [b.table for b in page_blocks(scan.page(1)) if b.table is not None]
        assert [[row.cells for row in table.rows] for table in tables] == [
            [("Part", "Count"), ("Washer", "7"), ("Bolt", "4")]
        ]


def test_a_picture_is_read_once(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = PageOcr("auto", tmp_path)
    with Document(scans / "scan.pdf", first) as scan:
        text = scan.page(1).text
    assert first.num_read == 1 and first.seconds > 0
    again = PageOcr("auto", tmp_path)
    monkeypatch.setattr(again, "_lines", lambda picture: pytest.fail("the picture was read a second time"))
    with Document(scans / "scan.pdf", again) as scan:
        assert scan.page(1).text == text and again.num_read == 0
    for file in tmp_path.glob("*.json"):
        file.write_text(file.read_text(encoding="utf-8")[:50], encoding="utf-8")
    damaged = PageOcr("auto", tmp_path)
    with Document(scans / "scan.pdf", damaged) as scan:
        assert scan.page(1).text == text and damaged.num_read == 1


def test_modes(scans: Path, tmp_path: Path) -> None:
    with Document(scans / "layer.pdf", PageOcr("auto", tmp_path)) as layer:
        assert layer.page(1).read is None
    with Document(scans / "layer.pdf", PageOcr("always", tmp_path)) as layer:
        assert layer.page(1).read is not None and WORDS[3] in layer.page(1).text
    with Document(scans / "scan.pdf", PageOcr("never", tmp_path)) as scan:
        assert scan.page(1).text.strip() == ""
    with pytest.raises(UserError, match="auto, never, always"):
        PageOcr("sometimes", tmp_path)  # type: ignore[arg-type]


def _line(text: str, x: float, y: float, slope: float = 0.0, width: float = 400, height: float = 32) -> OcrLine:
    corners = ((x, y), (x + width, y + slope * width), (x + width, y + height + slope * width), (x, y + height))
    return OcrLine(text, corners, tuple((k + 0.5) / len(text) for k in range(len(text))))


def test_a_cut_word_is_marked_and_skew_is_the_lines() -> None:
    lines = (_line("the second con-", 100, 140, 0.01), _line("This is one, and", 100, 100, 0.01))
    assert skew_of(lines) == pytest.approx(0.57, abs=0.02)
    glyphs = glyphs_of(OcrPage(lines, 2.0, 0.0))
    assert glyphs.text == "This is one, and\nthe second con\N{SOFT HYPHEN}\n"
    assert glyphs.angles.tolist() == pytest.approx([0.57] * len(glyphs.text), abs=0.02)
    assert len(glyphs.boxes) == len(glyphs.text)


def test_like_sizes_become_one() -> None:
    lines = (
        _line("body text of a page", 0, 0),
        _line("goes on a bit", 0, 40, height=29),
        _line("Title", 0, 90, height=60),
    )
    glyphs = glyphs_of(OcrPage(lines, 2.0, 0.0))
    assert len(set(glyphs.sizes.tolist())) == 2


def test_an_empty_page_gives_no_words() -> None:
    glyphs = glyphs_of(OcrPage((), 2.0, 0.0))
    assert glyphs.text == "" and glyphs.boxes.shape == (0, 4)
