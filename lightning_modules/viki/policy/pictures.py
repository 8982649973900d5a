"""Pictures into patches, as Qwen2.5-VL's image processor makes them: resized, and cut in blocks that are merged later.

Axis legend: H row, W column, M patch, C patch value.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from ....datamodules.files import write_json

FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are made into patches.

    Attributes:
        patch_size: side of a patch, pixels.
        merge_size: patches a side that become one token.
        temporal_patch_size: frames a patch holds; a picture is repeated.
        min_pixels: smaller pictures are enlarged.
        max_pixels: larger ones are made smaller.
        mean: of each colour, 0 to 1.
        std: likewise.
    """

    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def load(cls, folder: Path) -> PictureSettings:
        """Read `preprocessor_config.json`, ours or a released one; the published defaults where there is none."""
        if not (folder / FILE).is_file():
            return cls()
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        size = told.get("size") or {}
        return cls(
            told.get("patch_size", cls.patch_size),
            told.get("merge_size", cls.merge_size),
            told.get("temporal_patch_size", cls.temporal_patch_size),
            told.get("min_pixels") or size.get("shortest_edge", cls.min_pixels),
            told.get("max_pixels") or size.get("longest_edge", cls.max_pixels),
            tuple(told.get("image_mean", cls.mean)),
            tuple(told.get("image_std", cls.std)),
        )

    def save(self, folder: Path) -> None:
        """Write it in the published form."""
        own = asdict(self)
        told = {
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_mean": own.pop("mean"),
            "image_std": own.pop("std"),
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            **own,
        }
        write_json(folder / FILE, told)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that a picture is resized to: multiples of a token's side, near its shape, within limits."""
        side = self.patch_size * self.merge_size
        rows, columns = round(height / side) * side, round(width / side) * side
        if rows * columns > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows, columns = (max(side, math.floor(x / shrink / side) * side) for x in (height, width))
        elif rows * columns < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = (math.ceil(x * grow / side) * side for x in (height, width))
        return rows, columns

    def patches(self, picture_HW3: numpy.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Cut a picture.

        Args:
            picture_HW3: uint8 [H, W, 3].

        Returns:
            uint8 [M, 3 * patch_size ** 2], patches that are merged one after the other, colour first in each; and rows
            and columns of patches.
        """
        from PIL import Image

        height, width = self.size_of(*picture_HW3.shape[:2])
        if picture_HW3.shape[:2] != (height, width):
            picture_HW3 = numpy.asarray(Image.fromarray(picture_HW3).resize((width, height), Image.Resampling.BICUBIC))
        p, m = self.patch_size, self.merge_size
        rows, columns = height // p, width // p
        cut = numpy.ascontiguousarray(picture_HW3).reshape(rows // m, m, p, columns // m, m, p, 3)
        flat = cut.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3 * p * p)
        return torch.from_numpy(numpy.ascontiguousarray(flat)), (rows, columns)

    def floats(self, patches_MC: Tensor) -> Tensor:
        """Patches as the vision tower takes them: float32 [M, 3 * temporal_patch_size * patch_size ** 2]."""
        x_M3C = patches_MC.unflatten(1, (3, -1)).float() / 255
        mean, std = (x_M3C.new_tensor(x)[:, None] for x in (self.mean, self.std))
        x_M3C = (x_M3C - mean) / std
        return x_M3C[:, :, None].expand(-1, -1, self.temporal_patch_size, -1).flatten(1)
