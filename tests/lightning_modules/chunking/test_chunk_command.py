"""`fulgurite chunking chunk`: the file, going on after a kill, folders with bad files, and the page to look at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pypdf
import pytest

from fulgurite.datamodules.chunking.chunks import SCHEMA_FILE, read_chunks
from fulgurite.lightning_modules.chunking.command import chunk
from fulgurite.registry import UserError


def test_the_file_and_the_summary(manual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "chunks.jsonl"
    assert chunk(manual, out) == 0
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    for line in out.read_text(encoding="utf-8").splitlines():
        jsonschema.validate(json.loads(line), schema)
    said = capsys.readouterr().err
    assert "6 pages" in said and "0 violations" in said and "token recall 100.00 %" in said
    [(right, checked)] = re.findall(r"(\d+) of (\d+) page ranges borne out", said)
    assert right == checked != "0"
    assert [f.name for f in tmp_path.iterdir()].count("chunks.jsonl") == 1
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".chunks")]


@pytest.mark.slow
def test_a_call_that_is_killed_twice_reads_no_page_twice_and_gives_the_same_bytes(
    manual: Path, tmp_path: Path, child_environment: Callable[..., dict[str, str]]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    chunk(manual, whole, batch_pages=1)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fulgurite.lightning_modules.chunking.readers.layout import LayoutReader\n"
        "from fulgurite.lightning_modules.chunking.command import chunk\n"
        "first = LayoutReader.read_placed\n"
        "def slow(self, batch, context):\n"
        "    with open(sys.argv[3], 'a') as log: log.write(f'{batch.numbers}\\n')\n"
        "    time.sleep(float(sys.argv[4]))\n"
        "    return first(self, batch, context)\n"
        "LayoutReader.read_placed = slow\n"
        "chunk(Path(sys.argv[1]), Path(sys.argv[2]), batch_pages=1)\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", program, str(manual), str(out), str(log)]
    environment = child_environment()
    finished: list[str] = []
    for _ in range(2):
        process = subprocess.Popen([*command, "0.4"], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not (log.exists() and len(log.read_text().splitlines()) >= 3):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not out.exists()
        finished += log.read_text().splitlines()[:-1]
        log.unlink()
        [journal] = (tmp_path / ".out.jsonl.reading").iterdir()
        journal.write_bytes(journal.read_bytes() + b'{"pages": [9')  # what a kill in the middle of a write leaves
    subprocess.run([*command, "0"], env=environment, check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(finished + log.read_text().splitlines()) == [f"({page},)" for page in range(1, 7)]


def test_another_setting_begins_anew(manual: Path, tmp_path: Path) -> None:
    from fulgurite.datamodules.chunking.merging import MergePolicy
    from fulgurite.datamodules.chunking.pages import Document
    from fulgurite.lightning_modules.chunking.readers.layout import LayoutReader
    from fulgurite.lightning_modules.chunking.reading import read_document

    journal = tmp_path / "journal"
    resumed = []
    with Document(manual) as document:
        for target in (1000, 1000, 200):
            reader = LayoutReader(target)
            result = read_document(document, reader, "layout", [1, 2, 3], 1, MergePolicy(), journal)
            resumed.append(result.resumed)
    assert resumed == [0, 3, 0]


def test_a_folder_goes_on_after_a_bad_file(
    manual: Path, pdf: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(manual.read_bytes())
    (folder / "b.pdf").write_bytes(manual.read_bytes()[:700])
    (folder / "c.PDF").write_bytes(pdf.write_pdf(tmp_path / "c", [pdf.Sheet().text(72, 80, "One line.")]).read_bytes())
    (folder / "notes.txt").write_text("x")
    out = tmp_path / "all.jsonl"
    assert chunk(folder, out) == 1
    assert {c.source for c in read_chunks(out)} == {"a.pdf", "c.PDF"}
    assert "b.pdf: left out" in capsys.readouterr().err


def test_bad_files_of_every_kind_leave_the_rest_of_the_folder_alone(
    manual: Path, pdf: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, password, pages in (("locked", "secret", 1), ("empty", "", 0)):
        writer = pypdf.PdfWriter(manual)
        for _ in range(6 - pages):
            writer.remove_page(0)
        if password:
            writer.encrypt(password, algorithm="RC4-128")
        writer.write(folder / f"{name}.pdf")
    (folder / "cut.pdf").write_bytes(manual.read_bytes()[:700])
    (folder / "word.pdf").write_bytes(b"PK\x03\x04 and more")
    (folder / "nothing.pdf").write_bytes(b"")
    pdf.write_pdf(folder / "long.pdf", [pdf.Sheet()] * 5_001)
    pdf.write_pdf(folder / "huge.pdf", [pdf.Sheet(99_999, 99_999)])
    pdf.write_pdf(folder / "turned.pdf", [pdf.Sheet(rotate=90).text(72, 80, "A turned line of the page.")])
    (folder / "whole.pdf").write_bytes(manual.read_bytes())
    out = tmp_path / "all.jsonl"
    assert chunk(folder, out, reader="rules") == 1
    assert {c.source for c in read_chunks(out)} == {"turned.pdf", "whole.pdf"}
    said = capsys.readouterr().err
    for name, why in {
        "locked": "needs a password", "empty": "the PDF has no pages", "cut": "is damaged or cut off",
        "word": "is a ZIP or Office file", "nothing": "it is empty", "long": "one call reads at most 5000",
        "huge": "is 99999 by 99999 points",
    }.items():  # fmt: skip
        assert re.search(rf"{name}\.pdf: left out: .*{why}", said), (name, said)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["all.jsonl", "in", "manual.pdf"]


def test_mistakes_are_told_before_anything_is_written(manual: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    other = tmp_path / "mine.txt"
    other.write_text("my notes\n")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"path": tmp_path / "none.pdf"}, "no such file"),
        ({"reader": "layuot"}, "Did you mean 'layout'"),
        ({"reader": "openai"}, "needs --model"),
        ({"dpi": 100}, "takes no --dpi"),
        ({"reader": "recorded"}, "needs --record"),
        ({"batch_pages": 0}, "--batch_pages 0"),
        ({"pages": "9-12"}, "has 6 pages"),
        ({"pages": "x"}, "pages are given as"),
        ({"out": other}, "would be lost"),
    ]
    for options, text in wrong:
        with pytest.raises(UserError, match=text):
            chunk(**{"path": manual, "out": out, **options})
    assert not out.exists() and other.read_text() == "my notes\n"


def test_an_openai_call_and_its_replay_give_the_same_bytes(
    server: Any, manual: Path, tmp_path: Path, tagged: Callable[..., str]
) -> None:
    steps = "\n".join(f"{k}. Turn bolt number {k} until it is hand tight." for k in range(1, 5))
    url = server.start({"text": tagged(("False", steps + "\nRead all of this before you begin. The pump is heavy"))})
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    chunk(manual, first, reader="openai", model="tiny", url=url, dpi=50, pages="2", record=tmp_path / "r")
    server.process.terminate()
    chunk(manual, second, reader="recorded", pages="2", record=tmp_path / "r")
    assert first.read_text().replace('"openai"', '"recorded"') == second.read_text()
    [only] = read_chunks(first)
    assert (only.page_start, only.kind) == (2, "steps") and only.boxes


def test_the_page_to_look_at_is_whole(manual: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "c.jsonl", tmp_path / "view.html"
    chunk(manual, out, html=page, pages="2-4")
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r'<section class="page"', text)) == 3
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    for held in read_chunks(out):
        assert text.count(f'class="box" data-chunk="{held.id}"') == len(held.boxes)
        assert text.count(f'class="chunk" data-chunk="{held.id}"') == held.page_end - held.page_start + 1
