"""Qwen2.5-VL's vision tower over many pictures of one size at once.

transformers' own forward calls attention once for each window of each picture unless FlashAttention is installed, which
for small pictures is nearly all of its time. Here pictures of one shape go through as one batch, windows by a mask; the
weights and the arithmetic are transformers'.

Axis legend: I picture, M patch of a picture, H head, D feature.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_GRID = 1024
"""Patches of a picture beyond which the mask would cost more than it saves."""


def tower_features(visual: Any, floats_MC: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """Features of all pictures' tokens, one after the other, [tokens, D].

    Args:
        visual: `Qwen2_5_VisionTransformerPretrainedModel`.
        floats_MC: patches as the tower takes them.
        grids: rows and columns of patches of each picture.
    """
    sizes = [rows * columns for rows, columns in grids]
    if max(sizes) > LARGEST_GRID:
        grid = torch.tensor([[1, *grid] for grid in grids], device=floats_MC.device)
        features: Tensor = visual(floats_MC, grid_thw=grid).pooler_output
        return features
    shapes = sorted(set(grids))
    if len(shapes) == 1:
        return same_shape(visual, floats_MC.unflatten(0, (len(grids), -1)), shapes[0]).flatten(0, 1)
    pieces, made, places = floats_MC.split(sizes), [], []
    merged = torch.tensor(sizes) // visual.config.spatial_merge_size**2
    starts = merged.cumsum(0) - merged
    for shape in shapes:
        at = [k for k, grid in enumerate(grids) if grid == shape]
        made.append(same_shape(visual, torch.stack([pieces[k] for k in at]), shape).flatten(0, 1))
        places.append((starts[at][:, None] + torch.arange(int(merged[at[0]]))).flatten())
    return torch.cat(made)[torch.cat(places).argsort().to(floats_MC.device)]


def same_shape(visual: Any, floats_IMC: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pictures of one shape through the tower: [I, M / 4, D]."""
    config = visual.config
    positions_M2, windows_M = _layout(
        shape, config.spatial_merge_size, config.window_size // config.spatial_merge_size // config.patch_size
    )
    device, pictures = floats_IMC.device, len(floats_IMC)
    x_IMD = visual.patch_embed(floats_IMC.flatten(0, 1)).unflatten(0, (pictures, -1))
    cos_MD, sin_MD = (z.to(x_IMD.dtype) for z in visual.rotary_pos_emb(x_IMD, positions_M2.to(device)))
    windows_M = windows_M.to(device)
    mask_MM = windows_M[:, None] == windows_M
    for number, block in enumerate(visual.blocks):
        mask = None if number in config.fullatt_block_indexes else mask_MM
        x_IMD = x_IMD + _attention(block.attn, block.norm1(x_IMD), cos_MD, sin_MD, mask)
        x_IMD = x_IMD + block.mlp(block.norm2(x_IMD))
    features: Tensor = visual.merger(x_IMD.flatten(0, 1))
    return features.unflatten(0, (pictures, -1))


def _attention(attn: Any, x_IMD: Tensor, cos_MD: Tensor, sin_MD: Tensor, mask_MM: Tensor | None) -> Tensor:
    q_IHMD, k_IHMD, v_IHMD = attn.qkv(x_IMD).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q_IHMD, k_IHMD = (_rotated(z, cos_MD, sin_MD) for z in (q_IHMD, k_IHMD))
    out_IHMD = F.scaled_dot_product_attention(q_IHMD, k_IHMD, v_IHMD, mask_MM)
    out: Tensor = attn.proj(out_IHMD.transpose(1, 2).flatten(2))
    return out


def _rotated(x: Tensor, cos_MD: Tensor, sin_MD: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return (x * cos_MD + torch.cat([-second, first], -1) * sin_MD).to(x.dtype)


@functools.lru_cache(maxsize=64)
def _layout(shape: tuple[int, int], merge: int, window: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch, int64 [M, 2], in merged order; and the number of its window, int64 [M].

    Args:
        shape: rows and columns of patches.
        merge: patches a side that become a token.
        window: tokens a side of a window.
    """
    rows, columns = shape
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    blocks = (rows // merge, merge, columns // merge, merge)
    row_M, column_M = (z.reshape(blocks).transpose(1, 2).flatten() for z in (row, column))
    windows = row_M // (merge * window) * columns + column_M // (merge * window)
    return torch.stack([row_M, column_M], 1), windows
