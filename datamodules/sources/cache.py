"""The cache folder on this machine: where it is, what lies in it, whether more fits, and how it is emptied.

Layout: `sources/NAME/` (whole once it holds `.complete`), `sources/.tmp.NAME.*` (being made, or left by a killed
process), `downloads/` (archives that a user copied there by hand), `locks/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...registry import UserError, unknown
from .catalogue import Source

COMPLETE = ".complete"
SCHEMA_VERSION = 1
MOVE = (
    "Free some space (fulgurite cache list, fulgurite cache clean), or put the cache elsewhere:\n"
    "export FULGURITE_CACHE=/a/larger/disk"
)


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache.

    Attributes:
        name: source name, or `downloads/FILE` for an archive copied there by hand.
        path: folder or file.
        num_bytes: size on disk.
        complete: False for what a killed process left, or an entry without its mark.
        date: when it was last written, local time.
    """

    name: str
    path: Path
    num_bytes: int
    complete: bool
    date: datetime


def cache_dir() -> Path:
    """The cache folder: `FULGURITE_CACHE`, or the platform's cache folder + `fulgurite`. It need not exist yet."""
    if chosen := os.environ.get("FULGURITE_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fulgurite"


def source_folder(name: str) -> Path:
    """Final place of a source in the cache."""
    return cache_dir() / "sources" / name


def downloads_folder() -> Path:
    """Where a user without a network puts an archive by hand."""
    return cache_dir() / "downloads"


def make_folder(path: Path) -> Path:
    """Create a folder of the cache.

    Raises:
        UserError: if it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise UserError(f"the cache folder cannot be created: {error}\n{MOVE}") from None
    if not writable:
        raise UserError(f"the cache folder cannot be written to: {path}\n{MOVE}")
    return path


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds `path`, or would hold it."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def require_free(path: Path, num_bytes: float, what: str) -> None:
    """Refuse to begin what will not fit.

    Raises:
        UserError: if the disk that holds `path` has less than `num_bytes` free.
    """
    free = free_bytes(path)
    if free < num_bytes:
        raise UserError(
            f"{what} needs {num_bytes / 1e6:,.0f} MB, and the disk of {path} has {free / 1e6:,.0f} MB free\n{MOVE}"
        )


def damage(source: Source) -> str | None:
    """What is wrong with the cache's entry of `source`, in a few words; None if it is whole, "absent" if not there."""
    folder = source_folder(source.name)
    try:
        mark = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        if mark["schema_version"] != SCHEMA_VERSION or mark["recipe"] != source.recipe:
            return "made by another version of fulgurite"
        if mark["version"] != source.version or mark["sha256"] != source.sha256:
            return f"version {mark['version']} where {source.version} is wanted"
        files = dict(mark["files"])
    except FileNotFoundError:
        return "not finished" if folder.exists() else "absent"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {COMPLETE} file cannot be read"
    for name, size in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def mark_complete(folder: Path, source: Source) -> None:
    """Write `.complete` into a finished folder: schema_version, source, version, sha256, files with their sizes."""
    files = {f.relative_to(folder).as_posix(): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
    mark = {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "recipe": source.recipe,
        "version": source.version,
        "sha256": source.sha256,
        "files": files,
    }
    (folder / COMPLETE).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    mode = (folder / COMPLETE).stat().st_mode
    for name in files:  # safetensors writes its files for the owner alone, and a cache may be shared
        (folder / name).chmod(mode)


def entries() -> list[CacheEntry]:
    """What lies in the cache, by name."""
    found = []
    for folder in sorted(_children(cache_dir() / "sources")):
        parts = folder.name.split(".")
        name = parts[2] if folder.name.startswith(".tmp.") else folder.name
        found.append(_entry(name, folder, complete=(folder / COMPLETE).is_file() and name == folder.name))
    found += [_entry(f"downloads/{file.name}", file, complete=True) for file in sorted(_children(downloads_folder()))]
    return found


def clean(names: Iterable[str] | None = None) -> int:
    """Delete entries, by the names that `entries` gives; all of them if `names` is None.

    Returns:
        Number of bytes freed.

    Raises:
        UserError: if a name is not in the cache, or another process is fetching it at this moment.
    """
    present = entries()
    known = sorted({entry.name for entry in present})
    wanted = known if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise UserError(unknown("cache entry", name, known, "fulgurite cache list"))
    freed = 0
    for name in wanted:
        with lock(name.replace("/", "."), wait=False):
            for entry in entries():
                if entry.name == name:
                    remove(entry.path)
                    freed += entry.num_bytes
    return freed


@contextlib.contextmanager
def lock(name: str, *, wait: bool = True, waiting: str = "") -> Iterator[None]:
    """Hold the lock of a source: one process at a time. The lock of a killed process is free at once.

    Args:
        name: source name.
        wait: wait for another process, or refuse.
        waiting: said on stderr when there is something to wait for; nothing if empty.

    Raises:
        UserError: if another process holds it and `wait` is False.
    """
    import filelock

    held = filelock.FileLock(make_folder(cache_dir() / "locks") / f"{name}.lock")
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise UserError(f"another process is fetching '{name}' at this moment: try again when it is done") from None
        if waiting:
            print(waiting, file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def remove(path: Path) -> None:
    """Delete a file or folder; a folder loses its `.complete` first, so that half a deletion is no whole entry."""
    if path.is_dir():
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _entry(name: str, path: Path, complete: bool) -> CacheEntry:
    num_bytes = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with contextlib.suppress(OSError):  # another process may delete it between listing and asking
            num_bytes += file.lstat().st_size if not file.is_dir() else 0
    try:
        date = datetime.fromtimestamp(path.stat().st_mtime)
    except OSError:
        date = datetime.fromtimestamp(0)
    return CacheEntry(name, path, num_bytes, complete, date)
