"""Reading a video file frame by frame, at two sizes: the clips' own, and a grey one to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy

from ....registry import UserError

GREY_WIDTH = 512
"""Pictures are measured (flow, features, sharpness) at no more than this width."""


@dataclass(frozen=True)
class Crop:
    """The centred part of a source picture that has the clips' aspect, and its scaling to their size.

    Attributes:
        source: (H, W) of the video.
        size: (H, W) of the clips.
    """

    source: tuple[int, int]
    size: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height, width of the part, in source pixels."""
        (h, w), (target_h, target_w) = self.source, self.size
        height, width = min(h, round(w * target_h / target_w)), min(w, round(h * target_w / target_h))
        return (h - height) // 2, (w - width) // 2, height, width

    def picture(self, frame: numpy.ndarray) -> numpy.ndarray:
        """uint8 [*size, 3] of a source frame."""
        top, left, height, width = self.box
        part = frame[top : top + height, left : left + width]
        shrinks = height > self.size[0]
        return cv2.resize(part, self.size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def intrinsics(self, k_33: numpy.ndarray) -> numpy.ndarray:
        """K [..., 3, 3] for the clips from K for the source (pixel centres at +0.5 in both)."""
        top, left, height, width = self.box
        shift = numpy.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], float)
        return numpy.diag([self.size[1] / width, self.size[0] / height, 1.0]) @ shift @ k_33


@dataclass(frozen=True)
class Video:
    """A video file that opens.

    Attributes:
        path: the file.
        fps: frames per second.
        size: (H, W).
        num_frames: as its header says; decoding may end earlier.
    """

    path: Path
    fps: float
    size: tuple[int, int]
    num_frames: int

    @classmethod
    def open(cls, path: Path) -> Video:
        """Read the header and one frame.

        Raises:
            UserError: if there is no such file, or no video in it.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file\nName a video file, such as an mp4.")
        capture = cv2.VideoCapture(str(path))
        good, frame = capture.read()
        fps, number = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not good:
            raise UserError(f"{path}: no video that OpenCV can decode\nConvert it, for instance to an H.264 mp4.")
        return cls(path, fps if fps > 0 else 25.0, frame.shape[:2], number)

    @property
    def grey_size(self) -> tuple[int, int]:
        """(H, W) of the grey pictures."""
        scale = min(1.0, GREY_WIDTH / self.size[1])
        return round(self.size[0] * scale), round(self.size[1] * scale)

    def frames(self) -> Iterator[numpy.ndarray]:
        """Its frames in order, uint8 [H, W, 3], RGB."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            while True:
                good, frame = capture.read()
                if not good:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def grey(self, frame: numpy.ndarray) -> numpy.ndarray:
        """uint8 [*grey_size] of a frame."""
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, self.grey_size[::-1], interpolation=cv2.INTER_AREA)
