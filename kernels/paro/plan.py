"""The plan: for every layer and head an axis order, for every timestep bin a block mask too; one safetensors file.

Tensors (T timestep bins, L layers, H heads, R query blocks, C key blocks, O orders):

    masks       uint8 [T, L, H, R, ceil(C / 8)]   bit c % 8 of byte c // 8 is block c, 1 = kept
    orders      uint8 [L, H]                      number of the axis order (orders.py)
    empty       bool  [L, H]                      heads whose picture tokens hardly look at picture tokens
    density     float32 [T, L, H]                 kept blocks / all blocks, text included
    recall      float32 [T, L, H]                 attention mass in kept blocks, mean over queries
    recall_worst float32 [T, L, H]                the same in the worst block of queries
    sparse, incoherence, held float32 [L, H, O]   raw metrics of the orders (calibration.py)

The metadata entry `fulgurite.paro` holds the rest as JSON: the fields of `PlanMeta`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...registry import UserError
from .orders import Layout

SCHEMA_VERSION = 1
KEY = "fulgurite.paro"
BLOCK = 64


@dataclass(frozen=True)
class PlanMeta:
    """What a plan is for and how it was made.

    Attributes:
        grid: picture tokens along (frames, height, width) or (height, width).
        text: text tokens.
        side: `prefix` or `suffix`.
        edges: falling timesteps between the bins, T - 1 of them, in the transformer's own unit; a timestep below
            edges[i] lies behind bin i.
        model: class name of the transformer.
        model_hash: `model_hash` of its weights; empty = any.
        arm: `paro`, or what else chose the orders (`none`, `random`, `single`).
        target: what the masks were made for, such as {"density": 0.3}.
        metric: settings of the order's metric: alpha, eps, sigma.
        made_with: captures it was made from, in words.
        schema_version: version of this format.
    """

    grid: tuple[int, ...]
    text: int
    side: str
    edges: tuple[float, ...]
    model: str = ""
    model_hash: str = ""
    arm: str = "paro"
    target: dict[str, float] = field(default_factory=dict)
    metric: dict[str, float] = field(default_factory=dict)
    made_with: str = ""
    block: int = BLOCK
    schema_version: int = SCHEMA_VERSION

    @property
    def layout(self) -> Layout:
        """How tokens lie."""
        return Layout(tuple(self.grid), self.text, self.side)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """Orders and masks of a model; the tensors are described at the top of this file."""

    meta: PlanMeta
    masks: Tensor
    orders: Tensor
    empty: Tensor
    density: Tensor
    recall: Tensor
    recall_worst: Tensor
    sparse: Tensor
    incoherence: Tensor
    held: Tensor

    @property
    def num_blocks(self) -> int:
        """Blocks along a side of the map."""
        return -(-self.meta.layout.num_tokens // BLOCK)

    def keep(self, time_bin: Tensor | int, layer: int) -> Tensor:
        """The mask of a bin and layer, bool [1, H, R, C]; a 0-d tensor as bin is not read back to the CPU."""
        return unpack(self.bits(time_bin, layer), self.num_blocks)

    def bits(self, time_bin: Tensor | int, layer: int) -> Tensor:
        """The same mask as it is kept, uint8 [1, H, R, ceil(C / 8)]."""
        if isinstance(time_bin, int):
            return self.masks[time_bin, layer].unsqueeze(0)
        return self.masks[:, layer].index_select(0, time_bin.view(1))

    def to(self, device: torch.device) -> Plan:
        """The same with its tensors on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            UserError: if the plan contradicts itself, or can't be written.
        """
        check(self, "the plan to be written")
        tensors = {name: getattr(self, name).cpu().contiguous().clone() for name in TENSORS}  # none shares memory
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, {KEY: json.dumps(asdict(self.meta))})
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: the plan can't be written: {error}") from None
        finally:
            if temporary.exists():
                temporary.unlink()

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read and check a plan.

        Raises:
            UserError: if it can't be read, is no plan, or contradicts itself.
        """
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get(KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: can't be read as a plan: {error}") from None
        if text is None:
            raise UserError(f"{path}: is no plan of PARO (it lacks the metadata entry '{KEY}')\n"
                            "fulgurite paro calibrate makes one.")  # fmt: skip
        meta = _read_meta(text, path)
        missing = [name for name in TENSORS if name not in tensors]
        if missing:
            raise UserError(f"{path}: the plan lacks {', '.join(missing)}\nMake it again: fulgurite paro calibrate.")
        plan = cls(meta, **{name: tensors[name] for name in TENSORS})
        check(plan, str(path))
        return plan


TENSORS = ("masks", "orders", "empty", "density", "recall", "recall_worst", "sparse", "incoherence", "held")


def pack(keep: Tensor) -> Tensor:
    """A bool mask [..., C] as bits, uint8 [..., ceil(C / 8)]."""
    bytes_of = torch.nn.functional.pad(keep.to(torch.uint8), (0, -keep.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (bytes_of << torch.arange(8, dtype=torch.uint8, device=keep.device)).sum(-1, dtype=torch.uint8)


def unpack(bits: Tensor, size: int) -> Tensor:
    """The bool mask [..., size] of `pack`."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits.unsqueeze(-1) >> places) & 1).flatten(-2)[..., :size].bool()


def forced_blocks(layout: Layout) -> Tensor:
    """Blocks that are always kept, bool [C], as rows and as columns: those with text, and the last one.

    The last block alone may be shorter than 64 tokens; no row is ever left without a key.
    """
    num_blocks = -(-layout.num_tokens // BLOCK)
    forced = torch.zeros(num_blocks, dtype=torch.bool)
    forced[-1] = True
    if layout.text and layout.side == "prefix":
        forced[: -(-layout.text // BLOCK)] = True
    elif layout.text:
        forced[layout.num_image // BLOCK :] = True
    return forced


def check(plan: Plan, where: str) -> None:
    """See that a plan is whole and agrees with itself.

    Raises:
        UserError: with the first thing that is wrong.
    """
    meta, layout, size = plan.meta, plan.meta.layout, plan.num_blocks
    num_bins = len(meta.edges) + 1
    num_layers, num_heads = plan.orders.shape if plan.orders.ndim == 2 else (0, 0)
    per_mask = (num_bins, num_layers, num_heads)
    metrics = (num_layers, num_heads, len(layout.orders))
    wanted = {
        "masks": ((*per_mask, size, -(-size // 8)), torch.uint8),
        "orders": ((num_layers, num_heads), torch.uint8),
        "empty": ((num_layers, num_heads), torch.bool),
        **dict.fromkeys(("density", "recall", "recall_worst"), (per_mask, torch.float32)),
        **dict.fromkeys(("sparse", "incoherence", "held"), (metrics, torch.float32)),
    }
    for name, (shape, dtype) in wanted.items():
        given = getattr(plan, name)
        if tuple(given.shape) != shape or given.dtype != dtype:
            raise UserError(f"{where}: {name} is {given.dtype} {list(given.shape)}, not {dtype} {list(shape)}")
    if int(plan.orders.max()) >= len(layout.orders):
        raise UserError(f"{where}: order {int(plan.orders.max())} of a grid that has {len(layout.orders)}")
    if list(meta.edges) != sorted(set(meta.edges), reverse=True):
        raise UserError(f"{where}: the timesteps between the bins do not fall: {list(meta.edges)}")
    for name in ("density", "recall", "recall_worst"):
        values = getattr(plan, name)
        if not bool(((values >= 0) & (values <= 1.0001)).all()):
            raise UserError(f"{where}: {name} has values that are no shares from 0 to 1")
    forced = forced_blocks(layout).to(plan.masks.device)
    for time_bin in range(num_bins):  # a bin and layer at a time: all bits at once are bytes, eight times as many
        for layer in range(num_layers):
            keep = plan.keep(time_bin, layer)[0]
            if not bool(keep[:, forced].all() and keep[:, :, forced].all()):
                raise UserError(f"{where}: bin {time_bin}, layer {layer} drops blocks of text, or the last block")
            counted = keep.float().mean((1, 2))
            if not torch.allclose(counted, plan.density[time_bin, layer], atol=1e-4):
                raise UserError(f"{where}: bin {time_bin}, layer {layer} keeps other shares than its density says")


def _read_meta(text: str, path: str | Path) -> PlanMeta:
    try:
        content: dict[str, Any] = json.loads(text)
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(f"{path}: a plan of version {version}; this fulgurite reads version {SCHEMA_VERSION}\n"
                            "Make it again: fulgurite paro calibrate.")  # fmt: skip
        if content.get("block") != BLOCK:
            raise UserError(f"{path}: a plan of blocks of {content.get('block')} tokens; they have to be {BLOCK}")
        content["grid"], content["edges"] = tuple(map(int, content["grid"])), tuple(map(float, content["edges"]))
        meta = PlanMeta(**content)
        _ = meta.layout
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: the plan's metadata can't be read: {error}") from None
    return meta
