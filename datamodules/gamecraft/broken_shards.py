"""Broken shards of a recording: set aside when it goes on, and deleted once their episodes are recorded anew."""

from __future__ import annotations

import contextlib
import json
import tarfile
import warnings
from pathlib import Path

from ...registry import Notice
from .manifest import Manifest

SUFFIX = ".broken"
"""What a shard set aside, and its sidecar, are called by beyond their names: no reader looks at them any more."""


def set_aside(folder: Path) -> None:
    """Hold a folder's shards against their checksums and set those aside that fail, so that the rest is whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # that they are skipped: the recording says what becomes of them
        manifest = Manifest.open(folder)
        manifest.verify()
    for name in manifest.broken:
        shard = folder / name
        for path in (shard.with_suffix(".json"), shard):  # a kill in between leaves a shard that is still broken
            with contextlib.suppress(FileNotFoundError):
                path.replace(f"{path}{SUFFIX}")


def clear(folder: Path) -> list[str]:
    """Delete the shards set aside whose episodes stand in whole shards again.

    Returns:
        A sentence about those that were mended, and one about each that holds something else.
    """
    manifest = Manifest.open(folder)
    keys = manifest.usable_keys
    mended, sentences, num_episodes = [], [], 0
    for shard in sorted(folder.glob(f"shard-*.tar{SUFFIX}")):
        name, sidecar = shard.name.removesuffix(SUFFIX), shard.with_name(shard.name.replace(".tar", ".json"))
        held = _keys(shard, sidecar)
        if missing := held - keys:
            sentences.append(
                f"{folder.name}/{name} was broken and is set aside as {shard.name}: {len(missing)} of its {len(held)} "
                "episodes are not of this recording."
            )
            continue
        shard.unlink()
        sidecar.unlink(missing_ok=True)
        mended.append(name)
        num_episodes += len(held)
    if mended:
        count = "1 shard was" if len(mended) == 1 else f"{len(mended)} shards were"
        sentences.insert(
            0, f"{folder.name}: {count} broken; {num_episodes} episodes were recorded anew for: {', '.join(mended)}."
        )
    return sentences


def _keys(shard: Path, sidecar: Path) -> set[str]:
    """Keys of a shard's episodes, by its sidecar, or as far as the tar itself can be read."""
    try:
        return {row["key"] for row in json.loads(sidecar.read_text(encoding="utf-8"))["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    keys = set[str]()
    with contextlib.suppress(OSError, EOFError, ValueError, tarfile.TarError), tarfile.open(shard) as tar:
        keys.update(m.name.removesuffix(".json") for m in tar if m.name.endswith(".json"))
    return keys
