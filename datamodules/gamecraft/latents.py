"""Clips as latents of a VAE, encoded once: what the video models train on instead of pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...registry import UserError
from ..files import atomic_write, write_json

SCHEMA_VERSION = 1


def backwards(split: str) -> str:
    """The split of the store that holds the clips of `split` played backwards.

    Its row of an episode's clip i is that same clip reversed in time (not the i-th clip of the reversed episode), and
    its `lasts` are therefore the clips' first frames.
    """
    return f"{split}-backwards"


@dataclass
class LatentSplit:
    """All clips of a split.

    Attributes:
        first_row: episode key -> row of its first clip; the episode's other clips follow.
        num_clips: episode key -> number of its clips.
        clips: float16 [rows, 16, 9, h, w], each clip encoded by itself.
        lasts: float16 [rows, 16, 1, h, w], each clip's last frame encoded as a single picture.
    """

    first_row: dict[str, int]
    num_clips: dict[str, int]
    clips: Tensor
    lasts: Tensor


class LatentStore:
    """A folder of latents: `<split>.<number>.safetensors` and meta.json.

    Args:
        folder: the folder; `create` makes one.

    Raises:
        UserError: if there is none, or it is of another layout version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "meta.json"
        if not path.is_file():
            raise UserError(f"{folder}: no latents here\nMake them: fulgurite gamecraft encode")
        self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if self.meta.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"{path}: layout version {self.meta.get('schema_version')}, this version reads 1\nEncode again."
            )

    @classmethod
    def create(cls, folder: str | Path, *, vae_sha256: str, scaling_factor: float) -> LatentStore:
        """Begin a store, or go on with one of the same VAE.

        Raises:
            UserError: if the folder holds another VAE's latents.
        """
        meta = {"schema_version": SCHEMA_VERSION, "vae_sha256": vae_sha256, "scaling_factor": scaling_factor}
        path = Path(folder) / "meta.json"
        if not path.exists():
            write_json(path, meta)
        store = cls(folder)
        if store.meta != meta:
            raise UserError(f"{folder}: holds latents of another VAE\nDelete the folder, or name another one.")
        return store

    def _files(self, split: str) -> list[Path]:
        return sorted(self.folder.glob(f"{split}.[0-9]*.safetensors"))

    @property
    def splits(self) -> list[str]:
        """Names of the splits that it holds."""
        return sorted({p.name.split(".")[0] for p in self.folder.glob("*.safetensors")})

    def keys(self, split: str) -> set[str]:
        """Episodes of a split that are encoded already."""
        return {key for path in self._files(split) for key in _keys(path)}

    def write(self, split: str, keys: Sequence[str], clips: Tensor, lasts: Tensor) -> None:
        """Add episodes of equal length, in a file of their own.

        Args:
            split: train, val, ….
            keys: n episode keys.
            clips: [n, clips, 16, 9, h, w], scaled latents; kept as float16.
            lasts: [n, clips, 16, 1, h, w].

        Raises:
            ValueError: if the shapes do not fit together.
        """
        if len(keys) != len(clips) or clips.shape[:3] != lasts.shape[:3] or lasts.shape[3] != 1:
            raise ValueError(f"{len(keys)} keys, clips {tuple(clips.shape)} and lasts {tuple(lasts.shape)} do not fit")
        tensors = {"clips": clips.detach().cpu().half().contiguous(), "lasts": lasts.detach().cpu().half().contiguous()}
        path = self.folder / f"{split}.{len(self._files(split)):05d}.safetensors"
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"keys": json.dumps(list(keys))})

    def read(self, split: str) -> LatentSplit:
        """All latents of a split, in memory.

        Raises:
            UserError: if it holds none.
        """
        first_row: dict[str, int] = {}
        num_clips: dict[str, int] = {}
        clips, lasts, row = [], [], 0
        for path in self._files(split):
            with safe_open(path, "pt") as file:
                keys, clips_NC, lasts_NC = _keys(path), file.get_tensor("clips"), file.get_tensor("lasts")
            for key in keys:
                first_row[key], num_clips[key] = row, clips_NC.shape[1]
                row += clips_NC.shape[1]
            clips.append(clips_NC.flatten(0, 1))
            lasts.append(lasts_NC.flatten(0, 1))
        if not clips:
            raise UserError(
                f"{self.folder}: no latents of '{split}' (there are: {', '.join(self.splits) or 'none'})\n"
                "Make them: fulgurite gamecraft encode"
            )
        return LatentSplit(first_row, num_clips, torch.cat(clips), torch.cat(lasts))


def _keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        keys: list[str] = json.loads(file.metadata()["keys"])
    return keys
