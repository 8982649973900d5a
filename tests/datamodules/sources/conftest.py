"""A source made here: an archive built in the test's folder, a cache of its own, and child processes that fetch."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fulgurite.datamodules.sources import catalogue
from fulgurite.datamodules.sources.catalogue import Member, Source
from fulgurite.datamodules.sources.unpack import sha256_of

CONTENT = {
    "toy_pack/data/words.txt": b"one\ntwo\n" * 20_000,
    "toy_pack/data/deep/more.txt": b"three\n",
    "toy_pack/__init__.py": b"raise RuntimeError('imported')\n",
}


class FakeSource:
    """The source `toy`, its archive, and ways to fetch it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.cache = root / "cache"
        self.archive = build_wheel(root)
        self.source = Source(
            name="toy",
            title="a toy",
            kind="wheel",
            holds="data",
            licence="MIT",
            distribution="toy-pack",
            version="1.0",
            file=self.archive.name,
            sha256=sha256_of(self.archive),
            members=(Member("toy_pack/data/*", strip="toy_pack/data/"),),
            download_mb=0.1,
            disk_mb=0.1,
        )
        self.use()

    def use(self, **changes: object) -> None:
        """Put the source, changed, into the catalogue of this process."""
        self.source = replace(self.source, **changes)  # type: ignore[arg-type]
        self.monkeypatch.setitem(catalogue.SOURCES, "toy", self.source)

    def copy_by_hand(self, content: bytes | None = None) -> Path:
        target = self.cache / "downloads" / self.source.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.archive.read_bytes() if content is None else content)
        return target

    def use_prepare(self, code: str) -> None:
        """Make `code` the body of the source's prepare(folder), importable here and in child processes."""
        (self.root / "toy_prepare.py").write_text(
            "import os, pathlib, time\ndef prepare(folder):\n" + "".join(f"    {line}\n" for line in code.splitlines())
        )
        self.monkeypatch.syspath_prepend(str(self.root))
        sys.modules.pop("toy_prepare", None)
        self.use(prepare="toy_prepare:prepare")

    def child(self) -> subprocess.Popen[str]:
        """A process of its own that fetches the source and prints the folder."""
        code = (
            "from fulgurite.datamodules.sources.catalogue import *\n"
            f"SOURCES['toy'] = {self.source!r}\n"
            "from fulgurite.datamodules.sources.download import fetch\n"
            "print(fetch('toy'))\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def leftovers(self) -> list[str]:
        folder = self.cache / "sources"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def build_wheel(root: Path) -> Path:
    path = root / "toy_pack-1.0-py3-none-any.whl"
    info = "toy_pack-1.0.dist-info/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for name, content in CONTENT.items():
            packed.writestr(name, content)
        packed.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: toy-pack\nVersion: 1.0\n")
        packed.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(info + "RECORD", "")
    return path


def build_sdist(root: Path, setup: str) -> Path:
    path = root / "toy-pack-1.0.tar.gz"
    files = {
        **CONTENT,
        "setup.py": setup.encode(),
        "PKG-INFO": b"Metadata-Version: 1.0\nName: toy-pack\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(f"toy-pack-1.0/{name}")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FULGURITE_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> FakeSource:
    return FakeSource(tmp_path, monkeypatch)


@pytest.fixture
def make_sdist(tmp_path: Path) -> Callable[[str], Path]:
    return lambda setup: build_sdist(tmp_path, setup)
