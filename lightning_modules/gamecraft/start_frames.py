"""What a film starts from, brought to the model's size: pictures of any size, or clips.

Axis legend: B batch, F video frame, H W picture, C colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...datamodules.gamecraft.actions import CLIP_FRAMES
from ...registry import UserError

MOST_CLIPS = 2


def start_frames(given: Any, height: int, width: int) -> Tensor:
    """Frames [B, F, 3, H, W] uint8 of what a user starts from.

    Args:
        given: a picture (PIL, or uint8 [H, W, 3] array or tensor) of any size; a clip [F, H, W, 3] of 33 or 66 frames;
            a batch of clips [B, F, H, W, 3]; or a list of pictures or clips, one for each film of a batch.
        height: H of the model.
        width: W of the model.

    Raises:
        UserError: if it is none of these, or a batch mixes pictures and clips.
    """
    entries = list(given) if isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 5 else [given]
    clips = [_frames(entry) for entry in entries]
    if not clips or len({len(clip) for clip in clips}) != 1:
        raise UserError("the films of a batch start all from one picture, or all from clips of the same length")
    if len(clips[0]) != 1 and len(clips[0]) % CLIP_FRAMES:
        raise UserError(f"a start is one picture or clips of {CLIP_FRAMES} frames, not {len(clips[0])} frames")
    kept = [clip[-MOST_CLIPS * CLIP_FRAMES :] for clip in clips]
    pictures = [[np.asarray(fitted(frame, height, width)) for frame in clip] for clip in kept]
    return torch.from_numpy(np.stack([np.stack(clip) for clip in pictures])).movedim(-1, 2)


def fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture, cut to the aspect of height x width and resized: by area where it shrinks."""
    way = Image.Resampling.BOX if image.width >= width else Image.Resampling.BICUBIC
    return ImageOps.fit(image.convert("RGB"), (width, height), way)


def _frames(entry: Any) -> list[Image.Image]:
    if isinstance(entry, Image.Image):
        return [entry]
    array = entry.cpu().numpy() if isinstance(entry, Tensor) else np.asarray(entry)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise UserError(
            f"a start of shape {list(array.shape)} and type {array.dtype} is no picture\n"
            "Give a PIL image, uint8 [H, W, 3], or a clip [33, H, W, 3]."
        )
    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in (array[None] if array.ndim == 3 else array)]
