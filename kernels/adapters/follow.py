"""Hooks that tell a backend's `Place` which layer calls, at which timestep, for which grid of tokens.

    backend = make_backend("paro", plan="plan.safetensors")
    with follow(transformer, backend.place), use_attention(backend): ...

Layers are counted over the joint or self-attention of the transformer's blocks, in the order in which they run.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ...registry import UserError
from ..place import NO_LAYER, Place

Grid = tuple[int, ...]


@dataclass(frozen=True)
class TransformerKind:
    """What has to be known of a class of transformers.

    Attributes:
        layers: patterns of the names of its attention modules, in running order.
        side: where text stands in their sequence; None = it has no text in them.
        grid: (shape of hidden_states, config) to the grid of picture tokens; None = hidden_states do not tell.
    """

    layers: tuple[str, ...]
    side: str | None
    grid: Callable[[torch.Size, Any], Grid] | None


def _video_grid(shape: torch.Size, config: Any) -> Grid:
    """[B, C, T, h, w] in patches of patch_size_t x patch_size x patch_size."""
    return (shape[2] // config.patch_size_t, shape[3] // config.patch_size, shape[4] // config.patch_size)


def _wan_grid(shape: torch.Size, config: Any) -> Grid:
    """[B, C, T, h, w]; patch_size has three numbers."""
    return tuple(side // patch for side, patch in zip(shape[2:], config.patch_size, strict=True))


def _cogvideox_grid(shape: torch.Size, config: Any) -> Grid:
    """[B, T, C, h, w]; older versions have no patches in time."""
    return (shape[1] // (config.patch_size_t or 1), shape[3] // config.patch_size, shape[4] // config.patch_size)


_DOUBLE_SINGLE = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")
KINDS = {
    "HunyuanVideoTransformer3DModel": TransformerKind(_DOUBLE_SINGLE, "suffix", _video_grid),
    "WanTransformer3DModel": TransformerKind(("blocks.*.attn1",), None, _wan_grid),
    "FluxTransformer2DModel": TransformerKind(_DOUBLE_SINGLE, "prefix", None),
    "CogVideoXTransformer3DModel": TransformerKind(("transformer_blocks.*.attn1",), "prefix", _cogvideox_grid),
}


def kind_of(transformer: nn.Module) -> TransformerKind:
    """The kind of a transformer, by its class or the class it derives from.

    Raises:
        UserError: for a class of none of the kinds.
    """
    for base in type(transformer).__mro__:
        if base.__name__ in KINDS:
            return KINDS[base.__name__]
    raise UserError(f"{type(transformer).__name__}: its attention layers are not known here\n"
                    f"Known are {', '.join(KINDS)} and what derives from them.")  # fmt: skip


def attention_layers(transformer: nn.Module) -> dict[str, nn.Module]:
    """Names and modules of the layers that a plan counts, in their order.

    Raises:
        UserError: for a class of none of the kinds.
    """
    modules = dict(transformer.named_modules())
    patterns = kind_of(transformer).layers
    return {name: modules[name] for pattern in patterns for name in fnmatch.filter(modules, pattern)}


class follow:
    """Keep a place up to date while a transformer runs; within a `with` block, or until `remove`.

    Args:
        transformer: of one of `KINDS`.
        place: the place to keep.

    Raises:
        UserError: for a class of none of the kinds.
    """

    def __init__(self, transformer: nn.Module, place: Place) -> None:
        kind = kind_of(transformer)
        names = list(inspect.signature(transformer.forward).parameters)
        device = next((p.device for p in transformer.parameters()), torch.device("cpu"))
        self._place, place.side = place, kind.side
        enter = _Enter(place, names, kind.grid, device)
        self._handles = [
            transformer.register_forward_pre_hook(enter, with_kwargs=True, prepend=True),
            *(
                handle
                for number, layer in enumerate(attention_layers(transformer).values())
                for handle in (
                    layer.register_forward_pre_hook(_SetLayer(place, number)),
                    layer.register_forward_hook(_SetLayer(place, NO_LAYER)),
                )
            ),
        ]

    def remove(self) -> None:
        """Take the hooks off and forget the place."""
        for handle in self._handles:
            handle.remove()
        place = self._place
        place.layer, place.timestep, place.grid, place.side = NO_LAYER, None, None, None

    def __enter__(self) -> Place:
        """The place."""
        return self._place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the hooks off."""
        self.remove()


class _SetLayer:
    """Hook that notes a layer's number, before or after it."""

    def __init__(self, place: Place, layer: int) -> None:
        self._place, self._layer = place, layer

    def __call__(self, *unused: Any) -> None:
        self._place.layer = self._layer


class _Enter:
    """Hook that notes timestep and grid when the transformer is called.

    The timestep is copied into one tensor that stays: a CUDA graph of the transformer's forward, which hooks stand
    outside of, reads that tensor at each replay.
    """

    def __init__(
        self,
        place: Place,
        names: Sequence[str],
        grid: Callable[[torch.Size, Any], Grid] | None,
        device: torch.device,
    ) -> None:
        self._place, self._names, self._grid = place, list(names), grid
        self._timestep = self._fresh(device)

    @staticmethod
    def _fresh(device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return torch.zeros(1, dtype=torch.float32, device=device)

    def __call__(self, transformer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        timestep = given["timestep"]
        if isinstance(timestep, Tensor):
            if self._timestep.device != timestep.device:
                self._timestep = self._fresh(timestep.device)
            self._timestep.copy_(timestep.detach().flatten()[:1])
        else:
            self._timestep.fill_(float(timestep))
        self._place.layer = NO_LAYER
        self._place.timestep = self._timestep
        if self._grid is not None:
            grid = self._grid(given["hidden_states"].shape, transformer.config)
            self._place.grid = grid[1:] if grid[0] == 1 else grid  # a film of one frame is a picture
