"""Pip's own client as a downloader: it knows the user's mirrors, proxies and certificates. Nothing is ever installed.

Two ways in: `download_wheel` (plain `pip download`), and `download_sdist` for a package whose build step fails or
should not be run: pip downloads the archive and checks its hash before it unpacks and builds; a hard link keeps the
archive, pip is stopped as soon as it starts to unpack, and it could not start a build, since it is not told where its
Python is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .catalogue import Source

POLL_S = 0.1
LINK_POLL_S = 0.01
_PIP = ["-m", "pip"]
# every build step is a child of pip that runs sys.executable
_PIP_WITHOUT_BUILDS = [
    "-c",
    "import runpy, sys; sys.executable += '-builds-nothing'; sys.argv[0] = 'pip'; "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)",
]
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
        OSError: if the disk is full.
    """
    work = _work_folder(folder)
    process, log = _start(_PIP, source, folder, work, ["--only-binary=:all:"])
    try:
        while process.poll() is None:
            on_bytes(_size(work))
            time.sleep(POLL_S)
    finally:
        _stop(process)
    if process.returncode or not (folder / source.file).is_file():
        raise _failure(source, log)
    return folder / source.file


def download_sdist(source: Source, folder: Path, on_bytes: OnBytes) -> Path:
    """Download the source archive of `source` into `folder` without building it; as `download_wheel` otherwise."""
    work = _work_folder(folder)
    archive = folder / source.file
    process, log = _start(_PIP_WITHOUT_BUILDS, source, folder, work, ["--no-binary=:all:", "--no-build-isolation"])
    try:
        while process.poll() is None:
            for growing in work.glob(f"pip-unpack-*/{source.file}"):
                if not archive.exists():
                    with contextlib.suppress(FileNotFoundError):
                        os.link(growing, archive)
                on_bytes(archive.stat().st_size if archive.exists() else 0)
            if archive.exists() and any(work.glob("pip-download-*/*/*")):
                break  # pip has the whole archive, has checked its hash, and has begun to unpack
            time.sleep(POLL_S if archive.exists() else LINK_POLL_S)  # a small archive is soon gone
    finally:
        _stop(process)
    if not archive.is_file():
        raise _failure(source, log)
    return archive


def _work_folder(folder: Path) -> Path:
    work = folder / "pip"
    work.mkdir()
    return work


def _start(
    pip: list[str], source: Source, folder: Path, work: Path, options: list[str]
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `pip download`; its temporary files go to `work`, so that their size is the progress."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{source.distribution}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    log = folder / "pip.log"
    command = [sys.executable, *pip, "download", "--no-deps", "--require-hashes", "--no-cache-dir", "--no-input"]
    command += [
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--retries=2",
        *options,
        "-r",
        str(wanted),
        "-d",
        str(folder),
    ]
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


def _failure(source: Source, log: Path) -> DownloadFailed | OSError:
    """Why pip failed, read from what it said; its own words are not shown, since they name hosts."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    full = "No space left on device" in said or "Disk quota exceeded" in said
    # a full disk holds no log either; before pip began there was more than this
    if full or shutil.disk_usage(log.parent).free < 2e6 * source.download_mb:
        return OSError(errno.ENOSPC, "pip found the disk full")
    for sign, reason in (
        ("No module named pip", "this Python has no pip (python -m ensurepip brings it)"),
        ("DO NOT MATCH THE HASHES", "the registry's file has another sha256 than the expected one"),
        ("NewConnectionError", "no network"),
        ("ConnectTimeout", "no network"),
        ("ReadTimeout", "the network is too slow"),
        ("ProxyError", "the proxy refused"),
        ("SSLError", "the registry's certificate was not accepted"),
        ("No matching distribution", "the registry was not reached, or it has no such file"),
    ):
        if sign in said:
            return DownloadFailed(reason)
    return DownloadFailed("pip could not download it")
