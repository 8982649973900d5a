"""Fixtures: documents written by hand, and a chat server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def manual(pdf: ModuleType, tmp_path: Path) -> Path:
    """Six pages: running lines, sections, a procedure and a table over page breaks, two columns, a contents page."""
    sheets = [pdf.Sheet() for _ in range(6)]
    for number, sheet in enumerate(sheets, 1):
        if number > 1:
            sheet.text(72, 30, "Pump P-100 Owner Manual", 9)
        sheet.text(290, 805, str(number), 9)
    sheets[0].text(72, 120, "Pump P-100 Owner Manual", 28, bold=True)
    sheets[0].text(72, 300, "Contents", 18, bold=True)
    for k, (name, page) in enumerate([("1 Mounting", 2), ("2 Parts", 3), ("3 Notes", 6)]):
        sheets[0].text(72, 340 + 16 * k, f"{name} {'.' * 60} {page}")
    sheets[1].text(72, 80, "1 Mounting", 18, bold=True)
    sheets[1].lines(
        72,
        120,
        "Read all of this before you begin. The pump is heavy and should be lifted by two persons,",
        "one at each end. Keep the packaging until the pump has run for a day without a fault.",
    )
    sheets[1].text(72, 170, "1.1 Fixing the base", 14, bold=True)
    sheets[1].lines(72, 200, "Do it in this order:")
    for k in range(1, 5):
        sheets[1].text(72, 200 + 30 * k, f"{k}. Turn bolt number {k} until it is hand tight.")
    for k in range(5, 8):
        sheets[2].text(72, 50 + 30 * (k - 4), f"{k}. Turn bolt number {k} until it is hand tight.")
    sheets[2].text(72, 250, "2 Parts", 18, bold=True)
    head = ("Code", "Part", "Price")
    rows = [(f"K{k:02d}", f"washer size {k}", f"{k}.50") for k in range(1, 31)]
    sheets[2].table(300, [head, *rows[:12]])
    sheets[3].table(80, rows[12:24])
    sheets[4].table(80, [head, *rows[24:]])
    sheets[5].text(72, 80, "3 Notes", 18, bold=True)
    for side, x in (("left", 72.0), ("right", 320.0)):
        for k in range(14):
            sheets[5].text(x, 130 + 14 * k, f"the {side} column has its line number {k} here", 10)
    return pdf.write_pdf(tmp_path / "manual.pdf", sheets)


class Server:
    """A chat server that answers by a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *script: dict[str, Any]) -> str:
        """Start it with its answers; returns its base URL."""
        (self.folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("chat_server.py")), str(self.folder)]
        )
        deadline = time.monotonic() + 30
        while not (self.folder / "port").exists():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)
        return f"http://127.0.0.1:{(self.folder / 'port').read_text()}/v1"

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked, in order."""
        files = sorted(self.folder.glob("request-*.json"), key=lambda f: int(f.stem.partition("-")[2]))
        return [json.loads(f.read_text(encoding="utf-8")) for f in files]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    if made.process is not None:
        made.process.terminate()
        made.process.wait(10)


@pytest.fixture
def tagged() -> Callable[..., str]:
    """Tagged text from (flag, text) pairs under one head."""

    def make(*parts: tuple[str, str], head: str = "Pump P-100 Owner Manual > 1 Mounting > 1.1 Fixing the base") -> str:
        return "\n".join(f"[CONTINUES]{f}[/CONTINUES]\n[HEAD]{head}[/HEAD]\n{t}" for f, t in parts)

    return make
