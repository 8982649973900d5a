"""The page that shows chunks: known words lie inside their chunk's box, also where a browser draws it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.chunking.chunks import read_chunks
from fulgurite.datamodules.chunking.pages import Document
from fulgurite.datamodules.chunking.words import words_of
from fulgurite.lightning_modules.chunking.command import chunk

WORDS = {  # word that stands once on its page -> page
    "heavy": 2,
    "packaging": 2,
    "4.": 2,
    "5.": 3,
    "7.": 3,
    "K03": 3,
    "10.50": 3,
    "K17": 4,
    "K29": 5,
    "30.50": 5,
}
_BOX = re.compile(
    r'class="box" data-chunk="(?P<id>[^"]+)" style="--hue:\d+;'
    r"left:(?P<x>[\d.]+)%;top:(?P<y>[\d.]+)%;width:(?P<w>[\d.]+)%;height:(?P<h>[\d.]+)%"
)
SHOWN_JS = """(sheet, [x, y]) => {
    let drawn = sheet.getBoundingClientRect();
    window.scrollBy(0, drawn.top + y * drawn.height - innerHeight / 2);
    drawn = sheet.getBoundingClientRect();
    return document.elementsFromPoint(drawn.left + x * drawn.width, drawn.top + y * drawn.height)
        .filter(e => e.classList.contains("box"))
        .map(e => document.querySelector(`.chunk[data-chunk="${e.dataset.chunk}"] pre`).textContent);
}"""


@pytest.fixture
def view(manual: Path, tmp_path: Path) -> Path:
    chunk(manual, tmp_path / "chunks.jsonl", html=tmp_path / "view.html")
    return tmp_path / "view.html"


def _places(manual: Path) -> Iterator[tuple[str, int, float, float]]:
    """Each known word with its page and its middle, as shares of the page."""
    with Document(manual) as document:
        for word, number in WORDS.items():
            page = document.page(number)
            [found] = [w for w in words_of(page) if w.text == word]
            x, y = found.middle
            yield word, number, x / page.width, y / page.height


def test_ten_known_words_lie_in_the_box_of_the_chunk_that_says_them(manual: Path, view: Path) -> None:
    texts = {c.id: c.text for c in read_chunks(view.with_name("chunks.jsonl"))}
    sections = re.split(r'<section class="page"', view.read_text(encoding="utf-8"))[1:]
    for word, number, x, y in _places(manual):
        around = [
            m["id"]
            for m in _BOX.finditer(sections[number - 1])
            if float(m["x"]) <= 100 * x <= float(m["x"]) + float(m["w"])
            and float(m["y"]) <= 100 * y <= float(m["y"]) + float(m["h"])
        ]
        assert around and all(word in texts[chunk_id] for chunk_id in around), (word, around)


def test_a_browser_draws_the_boxes_there_without_a_network(manual: Path, view: Path) -> None:
    sync: Any = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install 'fulgurite[dev]')")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync.sync_playwright() as driver:
        if program is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("needs a Chromium: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(view.as_uri())
        for word, number, x, y in _places(manual):
            sheet = page.locator(f'section[data-page="{number}"] .sheet img')
            shown = sheet.evaluate(SHOWN_JS, [x, y])
            assert shown and all(word in text for text in shown), word
        assert all(url.startswith(("file:", "data:")) for url in asked)
        browser.close()
