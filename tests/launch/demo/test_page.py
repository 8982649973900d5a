"""The demo page in Chromium: it works by keyboard, asks nobody outside, and complains of nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulgurite.lightning_modules.gamecraft.play.server import is_loopback
from fulgurite.lightning_modules.gamecraft.play.world import DEFAULT_WEIGHTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DEFAULT_WEIGHTS.is_dir(), reason="needs weights/gamecraft-doom"),
]
pytest.importorskip("gradio", reason="needs gradio (pip install 'fulgurite[demo]')")
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from fulgurite.launch.demo import chunking, paro
    from fulgurite.launch.demo.page import served

    asked: list[object] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, to: Any) -> None:
        asked.append(to)
        connect(self, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noting)
        with served([chunking.TAB, paro.TAB]) as where:
            yield where
    outside = [to for to in asked if isinstance(to, tuple) and not is_loopback(str(to[0]))]
    assert outside == []  # nor does the server ask anybody


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    opened = chromium.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    opened.on("pageerror", lambda e: complaints.append(str(e)))
    opened.on("request", lambda r: asked.append(r.url))
    opened.goto(address, timeout=WAIT_MS)
    opened.wait_for_selector("#chunking-go", timeout=WAIT_MS)
    yield opened
    assert complaints == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "about:"))] == []
    opened.close()


def test_a_pdf_becomes_chunks_and_a_question_finds_them(page: Any, tmp_path: Path) -> None:
    typst = pytest.importorskip("typst")
    source = tmp_path / "cats.typ"
    source.write_text("= Cats\nCats sleep by day.\n\n= Horses\nHorses sleep standing, and need two hours of it.\n")
    typst.compile(str(source), output=str(tmp_path / "cats.pdf"))
    page.set_input_files("#chunking-pdf input[type=file]", str(tmp_path / "cats.pdf"))
    page.wait_for_selector("#chunking-pdf >> text=cats", timeout=WAIT_MS)
    page.click("#chunking-go")
    page.wait_for_selector("#chunking-view iframe", timeout=WAIT_MS)
    assert "Horses sleep standing" in page.get_attribute("#chunking-view iframe", "srcdoc")
    page.fill("#chunking-question textarea", "How do horses sleep?")
    page.press("#chunking-question textarea", "Enter")
    page.wait_for_selector("#chunking-found .found", timeout=WAIT_MS)
    assert "Horses sleep standing" in page.text_content("#chunking-found pre >> nth=0")


def test_something_that_is_no_pdf_gets_a_sentence(page: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_text("Dear all,")
    page.set_input_files("#chunking-pdf input[type=file]", str(tmp_path / "letter.pdf"))
    page.wait_for_selector("#chunking-pdf >> text=letter", timeout=WAIT_MS)
    page.click("#chunking-go")
    page.wait_for_selector("text=letter.pdf: ", timeout=WAIT_MS)
    assert "Traceback" not in page.content()
    assert page.locator("#chunking-view iframe").count() == 0


def test_a_density_is_typed_and_its_loss_told(page: Any) -> None:
    page.get_by_role("tab", name="PAROAttention").press("Enter")
    page.wait_for_selector("#paro-go", timeout=WAIT_MS)
    page.click("#paro-go")
    page.wait_for_selector("#paro-picture img", timeout=WAIT_MS)
    before = page.text_content("#paro-table")
    page.fill("#paro-density input[type=number]", "0.8")
    page.press("#paro-density input[type=number]", "Enter")
    page.click("#paro-go")
    page.wait_for_function("before => document.querySelector('#paro-table').textContent !== before", arg=before)
    assert "%" in before
