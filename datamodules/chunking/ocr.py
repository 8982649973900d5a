"""Words of pages that are pictures: rapidocr reads the page's picture, each one once, and keeps what it read.

The networks (PP-OCRv6, detection and recognition) lie inside rapidocr's wheel: nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ...registry import UserError, install_line
from ..files import atomic_write
from .layout_network import LayoutNetwork

if TYPE_CHECKING:
    from PIL import Image

    from .layout.text_lines import Region
    from .pages import Page

Corners = tuple[tuple[float, float], ...]  # top left, top right, bottom right, bottom left, in pixels
OcrMode = Literal["auto", "never", "always"]
MODES: tuple[OcrMode, ...] = get_args(OcrMode)
DPI = 150
MAX_PIXELS = 9_000_000  # A2 at 150 dpi; a larger page is read at a lower resolution
MIN_LAYER_CHARS = 24  # letters and digits: a text layer of fewer is as good as none
INK_DPI = 48
DARK = 200  # grey level; lighter is paper
MIN_LOOSE_INK = 0.0004  # of the page: a word or two
MIN_SIDE = 320  # pixels: smaller pictures are enlarged to it; rapidocr's 736 makes a small figure cost like a page
MIN_SCORE = 0.5  # rapidocr's own, for a line
MIN_MARK_SCORE = 0.75  # for what stands alone: it may be a speck
MIN_CONTRAST = 24  # grey levels between paper and darkest ink: a page of less is empty
SCHEMA_VERSION = 1
HELD_PAGES = 32
NEEDS = (
    "reading pages that are pictures needs rapidocr and onnxruntime\n"
    f"{install_line('chunking')}\nor leave such pages out: --ocr never"
)


@dataclass(frozen=True)
class OcrLine:
    """A line as it was read.

    Attributes:
        text: its words, parted by spaces.
        corners: top left, top right, bottom right, bottom left of its box, (x, y) in pixels.
        places: of each character of `text`, spaces too, its middle along the line, from 0 to 1.
    """

    text: str
    corners: Corners
    places: tuple[float, ...]


@dataclass(frozen=True)
class OcrPage:
    """What was read of a picture.

    Attributes:
        lines: in the order of detection.
        scale: pixels of a point.
        seconds: time of reading, when it was read.
    """

    lines: tuple[OcrLine, ...]
    scale: float
    seconds: float


class PageOcr:
    """Reads pages and keeps the lines in a folder, one file a picture, named by the picture's digest.

    Args:
        mode: `auto` reads pages whose text layer holds fewer than `MIN_LAYER_CHARS` letters and digits, if they show
            more than these; `always` reads all pages in the place of their text layer, `never` none.
        folder: where what was read is kept; it need not exist.

    Attributes:
        seconds: time that reading took in this process.
        num_read: pictures read in this process; those found in the folder are not counted.
        network: tells the figures of the pages that are read.

    Raises:
        UserError: for another mode.
    """

    def __init__(self, mode: OcrMode, folder: Path) -> None:
        if mode not in MODES:
            raise UserError(f"--ocr {mode}: one of {', '.join(MODES)}")
        self.mode, self.folder = mode, folder
        self.seconds = 0.0
        self.num_read = 0
        self.network = LayoutNetwork()
        self._engine: Any = None
        self._held: OrderedDict[tuple[Path, int], OcrPage] = OrderedDict()

    def wants(self, page: Page) -> bool:
        """Whether a page is read."""
        if self.mode != "auto":
            return self.mode == "always"
        return sum(map(str.isalnum, page.layer.text)) < MIN_LAYER_CHARS and _loose_ink(page) >= MIN_LOOSE_INK

    def read(self, page: Page) -> OcrPage:
        """The lines of a page.

        Raises:
            UserError: if rapidocr is not installed.
        """
        key = (page.document.path, page.number)
        if key not in self._held:
            dpi = min(float(DPI), 72 * (MAX_PIXELS / (page.width * page.height)) ** 0.5)
            picture = page.picture(dpi)
            self._held[key] = self._of_picture(picture, picture.width / page.width)
            if len(self._held) > HELD_PAGES:
                self._held.popitem(last=False)
        return self._held[key]

    def read_crop(self, page: Page, region: Region) -> OcrPage:
        """The lines of a part of a page, in pixels of that part.

        Args:
            page: it lies on.
            region: in points.

        Raises:
            UserError: if rapidocr is not installed.
        """
        dpi = min(float(DPI), 72 * (MAX_PIXELS / (page.width * page.height)) ** 0.5)
        scale = dpi / 72
        box = (region.x0 * scale, region.y0 * scale, region.x1 * scale, region.y1 * scale)
        return self._of_picture(page.picture(dpi).crop(tuple(map(round, box))), scale)

    def _of_picture(self, picture: Image.Image, scale: float) -> OcrPage:
        if _is_blank(picture):
            return OcrPage((), scale, 0.0)
        digest = hashlib.sha256(f"{engine_name()} {picture.size}".encode() + picture.tobytes()).hexdigest()
        file = self.folder / f"{digest[:40]}.json"
        if (kept := _kept(file)) is not None:
            return kept
        start = time.perf_counter()
        lines = self._lines(picture)
        made = OcrPage(lines, scale, time.perf_counter() - start)
        self.seconds += made.seconds
        self.num_read += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(_to_json(made)), encoding="utf-8")
        return made

    def _lines(self, picture: Image.Image) -> tuple[OcrLine, ...]:
        bgr_HWC = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
        engine = self._open()
        told = engine(bgr_HWC)
        lines = tuple(_line(*one) for one in _parts(told))
        return (*lines, *self._marks(bgr_HWC, lines))

    def _marks(self, bgr_HWC: np.ndarray, lines: Sequence[OcrLine]) -> list[OcrLine]:
        """Single characters that the detector passes over, such as a digit alone in its cell, and bullets."""
        from .ocr_marks import lone_marks

        crops, corners = lone_marks(bgr_HWC, [line.corners for line in lines])
        if not crops:
            return []
        found = []
        for text, score, box in zip(*self._recognise(crops), corners, strict=True):
            if score >= MIN_MARK_SCORE and text.strip():
                found.append(_line(text.strip(), box, ()))
        return found

    def _recognise(self, crops: Sequence[np.ndarray]) -> tuple[Sequence[str], Sequence[float]]:
        from rapidocr.ch_ppocr_rec import TextRecInput

        told = self._engine.text_rec(TextRecInput(img=list(crops), return_word_box=False))
        return told.txts or (), told.scores or ()

    def _open(self) -> Any:
        if self._engine is None:
            try:
                from rapidocr import RapidOCR
            except ImportError:
                raise UserError(NEEDS) from None
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "error",
                    "Global.use_cls": False,
                    "Global.return_word_box": True,
                    "Global.return_single_char_box": True,
                    "Global.max_side_len": 10_000,  # the picture's size is settled here
                    "Global.text_score": MIN_SCORE,
                    "Det.limit_side_len": MIN_SIDE,
                }
            )
        return self._engine


def engine_name() -> str:
    """What the answers depend on, besides the picture.

    Raises:
        UserError: if rapidocr is not installed.
    """
    try:
        return f"rapidocr {version('rapidocr')}, marks 2"
    except ModuleNotFoundError:
        raise UserError(NEEDS) from None


def _loose_ink(page: Page) -> float:
    """Share of a page that is dark outside its text layer's glyphs."""
    dark_HW = np.array(page.picture(INK_DPI).convert("L")) < DARK
    scale = INK_DPI / 72
    for x0, y0, x1, y1 in np.nan_to_num(page.layer.boxes).clip(0).tolist():
        dark_HW[int(y0 * scale) : int(y1 * scale) + 2, int(x0 * scale) : int(x1 * scale) + 2] = False
    return float(dark_HW.mean()) if dark_HW.size else 0.0


def _is_blank(picture: Image.Image) -> bool:
    grey_HW = np.asarray(picture.convert("L"))
    return int(grey_HW.max()) - int(grey_HW.min()) < MIN_CONTRAST


def _parts(told: Any) -> list[tuple[str, Corners, Sequence[Any]]]:
    """Text, corners and characters of the lines that rapidocr tells; none where it tells none."""
    if told.txts is None or told.boxes is None:
        return []
    corners = [tuple((float(x), float(y)) for x, y in box) for box in told.boxes]
    return list(zip(told.txts, corners, told.word_results, strict=True))


def _line(text: str, corners: Corners, characters: Sequence[Any]) -> OcrLine:
    """A line with the place of each character; those that rapidocr does not place stand at equal distances."""
    text = " ".join(text.split())
    seen = [c for c in text if c != " "]
    if len(seen) != len(characters):
        return OcrLine(text, corners, tuple((k + 0.5) / len(text) for k in range(len(text))))
    start, end = np.asarray(corners[0]), np.asarray(corners[1])
    along = (end - start) / max(float(((end - start) ** 2).sum()), 1e-6)
    middles = [float((np.asarray(box, np.float64).mean(0) - start) @ along) for _, _, box in characters]
    middles = np.maximum.accumulate(np.clip(middles, 0, 1)).tolist()
    places: list[float] = []
    at = 0
    for character in text:
        if character == " ":
            places.append((middles[at - 1] + middles[at]) / 2)
        else:
            places.append(middles[at])
            at += 1
    return OcrLine(text, corners, tuple(round(p, 4) for p in places))


def _to_json(page: OcrPage) -> dict[str, Any]:
    lines = [{"text": x.text, "corners": x.corners, "places": x.places} for x in page.lines]
    return {"schema_version": SCHEMA_VERSION, "scale": page.scale, "seconds": page.seconds, "lines": lines}


def _kept(file: Path) -> OcrPage | None:
    """What the folder holds of a picture; a damaged or older file is read anew."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["schema_version"] != SCHEMA_VERSION:
            return None
        lines = tuple(
            OcrLine(x["text"], tuple((a, b) for a, b in x["corners"]), tuple(x["places"])) for x in held["lines"]
        )
        return OcrPage(lines, held["scale"], held["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
