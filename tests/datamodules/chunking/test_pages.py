"""PDFs: what is taken, what is refused and in which words; places on turned and cropped pages."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import pypdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.chunking.pages import Document, parse_pages
from fulgurite.datamodules.chunking.words import words_of
from fulgurite.registry import UserError


@pytest.fixture
def simple(pdf: ModuleType, tmp_path: Path) -> Path:
    sheets = [pdf.Sheet().text(72, 100, f"word{k} here", 12).table(300, [("a", "b"), ("c", "d")]) for k in range(3)]
    path: Path = pdf.write_pdf(tmp_path / "simple.pdf", sheets)
    return path


def rewritten(path: Path, tmp_path: Path, change: str) -> Path:
    writer = pypdf.PdfWriter(clone_from=path)
    if change == "password":
        writer.encrypt("secret", algorithm="RC4-128")
    elif change == "owner":
        writer.encrypt("", "owner", algorithm="RC4-128")
    elif change == "rotate":
        for page in writer.pages:
            page.rotate(90)
    elif change == "crop":
        for page in writer.pages:
            page.cropbox = pypdf.generic.RectangleObject((50, 0, 595, 800))
    elif change == "none":
        while len(writer.pages):
            writer.remove_page(0)
    out = tmp_path / f"{change}.pdf"
    writer.write(out)
    return out


def test_words_stand_where_they_were_set(simple: Path) -> None:
    with Document(simple) as document:
        [page] = [document.page(2)]
        first = words_of(page)[0]
        assert (first.text, first.size, first.bold) == ("word1", 12, False)
        assert first.x0 == pytest.approx(72, abs=0.5) and 96 < first.y0 < 104 and 108 < first.y1 < 116
        lying = sorted({round(s.y0) for s in page.strokes if s.horizontal})
        assert lying == [300, 320, 340]
        assert page.picture(36).size == (298, 421)


def test_a_turned_page_is_read_as_shown(simple: Path, tmp_path: Path) -> None:
    with Document(rewritten(simple, tmp_path, "rotate")) as document:
        page = document.page(1)
        assert (round(page.width), round(page.height)) == (842, 595)
        first = words_of(page)[0]
        assert first.angle == pytest.approx(90, abs=1)
        assert 842 - 116 < first.x0 < 842 - 104 and first.y0 == pytest.approx(72, abs=1)


def test_a_cropped_page_begins_at_its_crop_box(simple: Path, tmp_path: Path) -> None:
    with Document(rewritten(simple, tmp_path, "crop")) as document:
        first = words_of(document.page(1))[0]
        assert first.x0 == pytest.approx(22, abs=0.5) and 54 < first.y0 < 62


def test_an_owners_restriction_does_not_stop_it(simple: Path, tmp_path: Path) -> None:
    with Document(rewritten(simple, tmp_path, "owner")) as document:
        assert document.num_pages == 3 and "word0" in document.page(1).text
        assert len(pypdf.PdfReader(io.BytesIO(document.part([2]))).pages) == 1


@pytest.mark.parametrize(("change", "text"), [("password", "needs a password"), ("none", "no pages")])
def test_what_cannot_be_read_is_told(simple: Path, tmp_path: Path, change: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        Document(rewritten(simple, tmp_path, change))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is no PDF: it is empty"),
        (b"PK\x03\x04 and more", "is no PDF: it is a ZIP or Office file"),
        (b"\x89PNG\r\n", "is no PDF: it is a PNG picture"),
        (b"plain words", "is no PDF"),
        (b"%PDF-1.4\nand nothing", "is damaged or cut off"),
    ],
)
def test_a_wrong_file_is_told_apart(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=text):
        Document(path)


def test_a_pdf_under_another_name_is_read(simple: Path, tmp_path: Path) -> None:
    other = tmp_path / "simple.bin"
    other.write_bytes(simple.read_bytes())
    with Document(other) as document:
        assert document.num_pages == 3


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        Document(tmp_path / "none.pdf")


def test_a_huge_page_is_refused_or_drawn_small(pdf: ModuleType, tmp_path: Path) -> None:
    path = pdf.write_pdf(tmp_path / "big.pdf", [pdf.Sheet(14000, 14000), pdf.Sheet(99999, 99999)])
    with Document(path) as document:
        width, height = document.page(1).picture(300).size
        assert width * height <= 40_100_000
        with pytest.raises(UserError, match="page 2 is 99999 by 99999 points"):
            document.page(2)


def test_ten_thousand_pages_are_read_in_parts(pdf: ModuleType, tmp_path: Path) -> None:
    path = pdf.write_pdf(tmp_path / "long.pdf", [pdf.Sheet()] * 10_000)
    with Document(path) as document:
        with pytest.raises(UserError, match="Read it in parts"):
            parse_pages(None, document.num_pages)
        assert parse_pages("9999-", document.num_pages) == [9999, 10_000]


@pytest.mark.parametrize(
    ("text", "numbers"), [(None, [1, 2, 3, 4]), ("2", [2]), ("3-", [3, 4]), ("-2", [1, 2]), ("1,3-9", [1, 3, 4])]
)
def test_page_ranges(text: str | None, numbers: list[int]) -> None:
    assert parse_pages(text, 4) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-2", "0", "5", "1--2", "1,,2"])
def test_wrong_page_ranges(text: str) -> None:
    if text == "":
        assert parse_pages(text, 4) == [1, 2, 3, 4]
        return
    with pytest.raises(UserError, match="--pages"):
        parse_pages(text, 4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6))
def test_a_damaged_pdf_gives_a_page_or_a_user_error(simple: Path, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(simple.read_bytes())
    for place, new in changes:
        place %= len(data)
        data[place : place + len(new)] = new
    path = simple.with_name("damaged.pdf")
    path.write_bytes(data)
    try:
        with Document(path) as document:
            for number in range(1, min(document.num_pages, 4) + 1):
                page = document.page(number)
                words_of(page), page.strokes
    except UserError as error:
        assert 1 <= len(str(error).splitlines()) <= 6
