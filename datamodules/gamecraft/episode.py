"""An episode: consecutive frames of one playthrough with their cameras and the actions commanded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy

from .actions import CLIP_FRAMES
from .camera import relative_to_first

SCHEMA_VERSION = 1
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass
class Episode:
    """Consecutive frames of one playthrough, a whole number of clips long.

    Attributes:
        key: unique name: letters, digits, `_`, `-`; at most 80.
        frames: uint8 [N, H, W, 3], N = 33 times the number of clips.
        intrinsics: float32 [N, 3, 3], in pixels of H, W.
        c2w: float64 [N, 4, 4], camera to world, OpenCV axes, in camera units (map units times `unit_scale`).
        pitch_deg: float32 [N].
        actions: float32 [clips, 8], speed fractions commanded in the order of `KEYS`; NaN where unknown.
        caption: a few words.
        captions_long: a sentence or two.
        meta: game, map, seed, engine, camera, kind, pose_source, … `static` says that nothing but the camera moves.
    """

    key: str
    frames: numpy.ndarray
    intrinsics: numpy.ndarray
    c2w: numpy.ndarray
    pitch_deg: numpy.ndarray
    actions: numpy.ndarray
    caption: str = ""
    captions_long: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def num_clips(self) -> int:
        """Number of whole clips."""
        return len(self.frames) // CLIP_FRAMES

    @property
    def static(self) -> bool:
        """Whether nothing but the camera moves, so that the episode may be played backwards."""
        return bool(self.meta.get("static", self.meta.get("kind") != "ingested" and not self.meta.get("monsters")))

    def check(self) -> None:
        """Refuse what a reader could not use.

        Raises:
            ValueError: on a bad key, shape, dtype or a number that is not finite.
        """
        n = len(self.frames)
        wanted = {"intrinsics": (n, 3, 3), "c2w": (n, 4, 4), "pitch_deg": (n,), "actions": (self.num_clips, 8)}
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"episode key {self.key!r}: only letters, digits, '_' and '-' are allowed, at most 80")
        if self.frames.dtype != numpy.uint8 or self.frames.ndim != 4 or self.frames.shape[3] != 3:
            raise ValueError(f"episode {self.key}: frames must be uint8 [N, H, W, 3], not {self.frames.shape}")
        if n == 0 or n % CLIP_FRAMES:
            raise ValueError(f"episode {self.key}: {n} frames are no whole number of clips of {CLIP_FRAMES}")
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"episode {self.key}: {name} must have shape {shape}, not {array.shape}")
            if name != "actions" and not numpy.isfinite(array).all():
                raise ValueError(f"episode {self.key}: {name} has a number that is not finite")

    def clip_moves(self) -> numpy.ndarray:
        """Start-to-end translation of each clip, played forwards and backwards, in the axes of the frame it starts at.

        Returns:
            float32 [clips, 2, 3], camera units.
        """
        c2w = self.c2w.reshape(self.num_clips, CLIP_FRAMES, 4, 4)
        ends = numpy.stack([c2w[:, [0, -1]], c2w[:, [-1, 0]]], 1)
        return relative_to_first(ends)[:, :, 1, :3, 3].astype(numpy.float32)
