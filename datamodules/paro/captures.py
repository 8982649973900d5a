"""Queries and keys of attention layers on disk: one safetensors file a film, step and layer, and a manifest.

Written by `fulgurite paro capture`, which goes on where it was stopped: a file that is there is whole.

Axis legend: H head, N token, D channel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...kernels.paro.calibration import Layer, bin_of
from ...kernels.paro.orders import Layout
from ...registry import UserError
from ..files import atomic_write, write_json

SCHEMA_VERSION = 1
MANIFEST = "captures.json"
SPLITS = ("calibrate", "test")
NAME = re.compile(r"f(\d+)-s(\d+)-l(\d+)\.safetensors")


@dataclass(frozen=True)
class Film:
    """One prompt of the sampler.

    Attributes:
        text: the prompt, or the keys.
        split: `calibrate`, or `test`, which chooses nothing.
        seed: of its noise.
        start: name of the start picture, where the model needs one.
    """

    text: str
    split: str
    seed: int
    start: str = ""


@dataclass(frozen=True)
class CaptureMeta:
    """What captures are of.

    Attributes:
        model: class name of the transformer.
        model_hash: `kernels.paro.model_hash` of its weights.
        grid: picture tokens along (frames, height, width) or (height, width).
        text: text tokens.
        side: `prefix` or `suffix`.
        num_layers, num_heads, head_dim: of the transformer's attention.
        timesteps: the sampler's, falling, in the transformer's unit.
        edges: timesteps between the bins (`kernels.paro.plan.PlanMeta`).
        steps: numbers of the timesteps that are captured, one a bin.
        films: the prompts.
    """

    model: str
    model_hash: str
    grid: tuple[int, ...]
    text: int
    side: str
    num_layers: int
    num_heads: int
    head_dim: int
    timesteps: tuple[float, ...]
    edges: tuple[float, ...]
    steps: tuple[int, ...]
    films: tuple[Film, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def layout(self) -> Layout:
        """How the tokens lie."""
        return Layout(self.grid, self.text, self.side)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Handle:
    """One capture that is on disk: numbers of its film, step and layer."""

    film: int
    step: int
    layer: int

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"f{self.film:03d}-s{self.step:03d}-l{self.layer:03d}.safetensors"


class CaptureStore:
    """A folder of captures.

    Args:
        folder: the folder.
        meta: what the captures are of; None reads it from the folder.

    Raises:
        UserError: if the folder holds none, or captures of something else than `meta` says.
    """

    def __init__(self, folder: str | Path, meta: CaptureMeta | None = None) -> None:
        self.folder = Path(folder)
        manifest = self.folder / MANIFEST
        there = _read(manifest) if manifest.is_file() else None
        if there is None and meta is None:
            raise UserError(f"{self.folder}: holds no captures ({MANIFEST} is missing)\n"
                            "fulgurite paro capture makes them.")  # fmt: skip
        if there is not None and meta is not None and there != meta:
            changed = [name for name, value in asdict(meta).items() if asdict(there)[name] != value]
            raise UserError(f"{self.folder}: holds captures made with another {', '.join(changed)}\n"
                            "Name another folder, or delete it.")  # fmt: skip
        if there is None:
            assert meta is not None
            write_json(manifest, asdict(meta))
        found = there or meta
        assert found is not None
        self.meta = found

    @property
    def handles(self) -> tuple[Handle, ...]:
        """All captures on disk, by film, step and layer."""
        names = (NAME.fullmatch(file.name) for file in self.folder.iterdir())
        return tuple(sorted((Handle(*map(int, n.groups())) for n in names if n), key=lambda h: h.file))

    def missing(self, film: int) -> list[Handle]:
        """Captures of a film that are not on disk."""
        have = set(self.handles)
        wanted = (Handle(film, step, layer) for step in self.meta.steps for layer in range(self.meta.num_layers))
        return [handle for handle in wanted if handle not in have]

    def select(self, layer: int, split: str) -> list[Handle]:
        """A layer's captures from films of a split.

        Raises:
            UserError: if there are none.
        """
        found = [h for h in self.handles if h.layer == layer and self.meta.films[h.film].split == split]
        if not found:
            raise UserError(f"{self.folder}: has no capture of layer {layer} from films of the split '{split}'\n"
                            "fulgurite paro capture makes what is missing.")  # fmt: skip
        return found

    def write(self, handle: Handle, q_HND: Tensor, k_HND: Tensor, seen_N: Tensor | None = None) -> None:
        """Write one capture, whole or not at all.

        Args:
            handle: which one.
            q_HND, k_HND: queries and keys as attention gets them.
            seen_N: bool, False = a key that is masked out.
        """
        tensors = {"q": q_HND, "k": k_HND, **({} if seen_N is None else {"seen": seen_N})}
        with atomic_write(self.folder / handle.file) as temporary:
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary)

    def load(self, handle: Handle, device: torch.device | str = "cpu") -> Layer:
        """One capture.

        Raises:
            UserError: if its file is damaged.
        """
        path = self.folder / handle.file
        try:
            tensors = load_file(path, device=str(device))
            return Layer(tensors["q"], tensors["k"], self.meta.layout, tensors.get("seen"))
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{path}: the capture can't be read: {error}\nDelete it and capture again.") from None

    def timestep(self, handle: Handle) -> float:
        """The timestep of a capture."""
        return self.meta.timesteps[handle.step]


def steps_to_capture(timesteps: Sequence[float], edges: Sequence[float]) -> tuple[int, ...]:
    """The middle step of every timestep bin."""
    bins = [bin_of(timestep, edges) for timestep in timesteps]
    each = ([step for step, found in enumerate(bins) if found == b] for b in range(len(edges) + 1))
    return tuple(steps[(len(steps) - 1) // 2] for steps in each if steps)


def _read(manifest: Path) -> CaptureMeta:
    try:
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        if content.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"{manifest}: captures of version {content.get('schema_version')}; this fulgurite reads "
                            f"version {SCHEMA_VERSION}\nCapture again into another folder.")  # fmt: skip
        content["films"] = tuple(Film(**film) for film in content["films"])
        for name in ("grid", "timesteps", "edges", "steps"):
            content[name] = tuple(content[name])
        return CaptureMeta(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{manifest}: can't be read: {error}") from None
