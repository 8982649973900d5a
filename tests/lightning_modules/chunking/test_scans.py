"""`fulgurite chunking chunk` on a scan: rows under their header, told as read off the picture; never leaves it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.datamodules.chunking.chunks import read_chunks
from fulgurite.datamodules.sources.download import is_cached
from fulgurite.lightning_modules.chunking.command import chunk

pytest.importorskip("pypdfium2")
pytest.importorskip("rapidocr", reason="rapidocr is not installed: pip install 'fulgurite[chunking]'")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    if not is_cached("page-layout"):
        pytest.skip("the layout network is not in the cache: fulgurite fetch page-layout")
    typst = pytest.importorskip("typst")
    from fulgurite.datamodules.chunking.typeset.scan import scanned

    cells = ", ".join(f"[{c}]" for c in ("Part", "Count", "Washer", "7", "Bolt", "4"))
    (tmp_path / "page.typ").write_text(
        "#set page(width: 300pt, height: 200pt, margin: 30pt)\n#set text(size: 11pt)\n"
        f"Check that all parts are there.\n\n#table(columns: (90pt, 60pt), {cells})\n",
        encoding="utf-8",
    )
    file = tmp_path / "scan.pdf"
    file.write_bytes(scanned(typst.compile(str(tmp_path / "page.typ"), format="pdf"), seed=5))
    return file


def test_scan_gives_rows(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "chunks.jsonl"
    assert chunk(scan, out=out, reader="rules") == 0
    told = capsys.readouterr().err
    assert "1 pages read off their picture" in told and "0 violations" in told
    texts = [c.text for c in read_chunks(out)]
    assert "| Part | Count |\n|---|---|\n| Bolt | 4 |" in texts
    assert not list(tmp_path.glob(".chunks.jsonl*")), "the journal and what was read are gone"


def test_never_leaves_the_page_out(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "chunks.jsonl"
    assert chunk(scan, out=out, reader="rules", ocr="never") == 0
    assert "no text on 1 pages" in capsys.readouterr().err
    assert list(read_chunks(out)) == []
