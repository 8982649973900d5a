"""Weights in eight bits with a scale for each output: half of bfloat16's bytes in a released folder.

Axis legend: R outputs, the first axis of a matrix or of a convolution's kernel; ... the other axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = "weights.int8.safetensors"
SCHEMA_VERSION = 1
_SCALE = ".scale"
_LARGEST = 127


class EightBitWeights:
    """Mixin for a diffusers model: `from_pretrained` opens a folder that `save_eight_bits` wrote, too."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """The model, its matrices and kernels expanded to the number format asked for (`dtype`; default float32).

        Args:
            pretrained_model_name_or_path: a folder, or what the base takes.
            kwargs: the base's.

        Raises:
            OSError: if a folder's eight-bit weights can't be read, or are of another version.
        """
        folder = Path(pretrained_model_name_or_path) / (kwargs.get("subfolder") or "")
        if not (folder / FILE).is_file():
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        model = cls.from_config(cls.load_config(folder))  # type: ignore[attr-defined]
        try:
            model.load_state_dict(read(folder / FILE))
        except RuntimeError as error:
            raise OSError(f"{folder / FILE}: weights that don't fit config.json: {str(error)[:200]}") from None
        wanted = kwargs.get("dtype") or kwargs.get("torch_dtype") or torch.float32
        model.register_to_config(_name_or_path=str(folder))
        return torch.nn.Module.to(model, wanted).eval()


def save_eight_bits(model: Any, folder: Path) -> None:
    """Write a diffusers model's settings and weights (`write`)."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    write(model.state_dict(), folder / FILE)


def write(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights: those of two axes or more, [R, ...], as int8 with float32 scales [R], the rest as bfloat16."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim >= 2 and weight.is_floating_point():
            tensors[name], tensors[name + _SCALE] = quantise(weight)
        else:
            tensors[name] = weight.to(torch.bfloat16 if weight.is_floating_point() else weight.dtype).contiguous()
    save_file(tensors, path, {"schema_version": str(SCHEMA_VERSION)})


def read(path: Path) -> dict[str, Tensor]:
    """The weights of such a file, matrices and kernels expanded to float32.

    Raises:
        OSError: if it can't be read, or is of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("schema_version") != str(SCHEMA_VERSION):
                raise OSError(f"{path}: eight-bit weights of another version than {SCHEMA_VERSION}")
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise OSError(f"{path}: eight-bit weights that can't be read: {error}") from None
    found = {}
    for name, weight in held.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in held:
            continue
        if weight.dtype == torch.int8:
            scale_R = held.get(name + _SCALE)
            if scale_R is None or scale_R.shape != weight.shape[:1] or not scale_R.isfinite().all():
                raise OSError(f"{path}: '{name}' has no scale for each of its outputs")
            weight = expand(weight, scale_R)
        found[name] = weight
    return found


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 [R, ...], and the float32 scale [R] that turns it back: an output's largest weight is 127 steps."""
    rows = weight.float().flatten(1)
    scale_R = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
    return (rows / scale_R[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8).view(weight.shape), scale_R


def expand(steps: Tensor, scale_R: Tensor) -> Tensor:
    """The inverse of `quantise`, float32 [R, ...]."""
    return (steps.float().flatten(1) * scale_R[:, None]).view(steps.shape)
