"""PDFs made to do harm, and cut ones: each gives pages or a clear error within limits of time and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pypdf
import pytest
from pypdf.errors import DependencyError

from fulgurite.datamodules.chunking import nested_forms
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.registry import UserError

MEMORY_BYTES = 6 << 30  # of addresses: the interpreter, numpy and pdfium reserve more than they use
READ = """
import sys
from pathlib import Path
from fulgurite.datamodules.chunking.layout.blocks import page_blocks
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.registry import UserError
try:
    with Document(Path(sys.argv[1])) as document:
        for number in range(1, min(document.num_pages, 3) + 1):
            page_blocks(document.page(number))
            document.page(number).picture(72)
        document.outline()
        print("read", document.num_pages)
except UserError as error:
    print("refused", error)
"""


def _written(objects: list[bytes], path: Path) -> Path:
    """A PDF of raw objects, of which the first is the catalogue."""
    data, places = b"%PDF-1.7\n", []
    for number, held in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, held)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    path.write_bytes(data)
    return path


def _page(content: bytes, resources: bytes = b"<< >>", filters: bytes = b"") -> list[bytes]:
    return [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources " + resources + b" >>",
        b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), filters, content),
    ]


def deep_arrays() -> list[bytes]:
    return [*_page(b""), b"[" * 100_000 + b"]" * 100_000]


def deep_graphics_states() -> list[bytes]:
    return _page(b"q " * 200_000)


def a_tree_that_is_its_own_child() -> list[bytes]:
    return [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 4 >>"]


def a_count_of_two_thousand_million_pages() -> list[bytes]:
    objects = _page(b"")
    objects[1] = b"<< /Type /Pages /Kids [3 0 R] /Count 2000000000 >>"
    return objects


def forms_that_draw_each_other() -> list[bytes]:
    form = b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F %d 0 R >> >> /Length 13 >>\n"
    body = b"stream\n/F Do /F Do \nendstream"
    return [*_page(b"/F Do", b"<< /XObject << /F 5 0 R >> >>"), form % 6 + body, form % 5 + body]


def forms_that_double_thirty_times() -> list[bytes]:
    form = b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F %d 0 R >> >> /Length 13 >>\n"
    body = b"stream\n/F Do /F Do \nendstream"
    return [*_page(b"/F Do", b"<< /XObject << /F 5 0 R >> >>"), *(form % (6 + k) + body for k in range(29)), b"null"]


def a_bomb_of_text() -> list[bytes]:
    words = b"BT /F1 9 Tf 10 10 Td " + b"(bomb) Tj " * 100_000 + b"ET"
    font = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    return _page(zlib.compress(words, 9), font, b"/Filter /FlateDecode")


def a_bomb_in_a_bomb() -> list[bytes]:
    return _page(zlib.compress(zlib.compress(b"0 " * (16 << 20), 9), 9), filters=b"/Filter [/FlateDecode /FlateDecode]")


def a_picture_of_a_million_by_a_million() -> list[bytes]:
    data = zlib.compress(b"\0" * 1000)
    picture = (
        b"<< /Type /XObject /Subtype /Image /Width 1000000 /Height 1000000 /ColorSpace /DeviceRGB /BitsPerComponent 8 "
        b"/Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (len(data), data)
    )
    return [*_page(b"500 0 0 500 0 0 cm /I Do", b"<< /XObject << /I 5 0 R >> >>"), picture]


def numbers_without_end() -> list[bytes]:
    return _page(b"1e400 -1e400 99999999999999999999 0 re S " * 1000 + b"BT /F1 1e30 Tf (x) Tj ET")


HOSTILE: list[Callable[[], list[bytes]]] = [
    deep_arrays,
    deep_graphics_states,
    a_tree_that_is_its_own_child,
    a_count_of_two_thousand_million_pages,
    forms_that_draw_each_other,
    forms_that_double_thirty_times,
    a_bomb_of_text,
    a_bomb_in_a_bomb,
    a_picture_of_a_million_by_a_million,
    numbers_without_end,
]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _read(path: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, preexec_fn=_limit)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are set as on Linux")
@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_pdf_is_read_or_refused_within_limits(
    make: Callable[[], list[bytes]], tmp_path: Path, child_environment: Callable[..., dict[str, str]]
) -> None:
    said = _read(_written(make(), tmp_path / "hostile.pdf"), child_environment())
    assert said.startswith(("read", "refused")), said
    if said.startswith("refused"):
        assert "hostile.pdf" in said and len(said) < 600


def test_what_pypdf_cannot_follow_is_left_to_pdfium(
    pdf: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*arguments: object) -> None:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")  # no PyPdfError

    monkeypatch.setattr(pypdf.PdfReader, "__init__", refuse)
    monkeypatch.setattr(nested_forms, "_has_forms", lambda path: True)
    with Document(pdf.write_pdf(tmp_path / "aes.pdf", [pdf.Sheet().text(72, 100, "words")])) as document:
        assert document.num_pages == 1


def test_forms_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="page 1 draws forms inside forms without end"):
        nested_forms.refuse_nested_forms(_written(forms_that_draw_each_other(), tmp_path / "hostile.pdf"))


@pytest.mark.slow
def test_a_pdf_cut_anywhere_is_read_or_refused(
    pdf: ModuleType, tmp_path: Path, child_environment: Callable[..., dict[str, str]]
) -> None:
    sheets = [pdf.Sheet().text(72, 100, f"word{k} here", 12).table(300, [("a", "b"), ("c", "d")]) for k in range(3)]
    data = pdf.write_pdf(tmp_path / "whole.pdf", sheets).read_bytes()
    for share in (0.02, 0.3, 0.6, 0.95):
        cut = tmp_path / "cut.pdf"
        cut.write_bytes(data[: int(share * len(data))])
        said = _read(cut, child_environment())
        assert said.startswith("read") or "cut.pdf: is damaged or cut off" in said or "no pages" in said, (share, said)
