"""The text layer's glyphs, as pdfium gives them, at their place on the shown page."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from .pages import MAX_GLYPHS, Glyphs, display_transform

BOLD_WEIGHT = 600
_FORCE_BOLD = 1 << 18  # of a font descriptor's flags
_HYPHENS = {0x02: "\xad", 0xFFFE: "\xad"}  # how pdfium marks a hyphen at a line's end
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_glyphs(page: Any, width: float, height: float) -> Glyphs:
    """Glyphs of an open pdfium page; more than `MAX_GLYPHS` are cut off."""
    import pypdfium2.raw as pdfium

    layer = page.get_textpage()
    try:
        count = min(pdfium.FPDFText_CountChars(layer.raw), MAX_GLYPHS)
        return _read(pdfium, layer.raw, count, display_transform(page, width, height))
    finally:
        layer.close()


def _read(pdfium: Any, layer: Any, count: int, transform: np.ndarray) -> Glyphs:
    boxes = np.zeros((count, 4), np.float64)
    sizes, bold, angles = np.zeros(count, np.float32), np.zeros(count, bool), np.zeros(count, np.float32)
    text = []
    rectangle = pdfium.FS_RECTF()
    pointer = ctypes.byref(rectangle)
    styles: dict[int, tuple[float, bool, float]] = {}
    turn = math.degrees(math.atan2(transform[1, 0], transform[0, 0]))
    style = (0.0, False, 0.0)
    for k in range(count):
        code = pdfium.FPDFText_GetUnicode(layer, k)
        text.append(_character(code))
        if pdfium.FPDFText_GetLooseCharBox(layer, k, pointer):
            boxes[k] = rectangle.left, rectangle.bottom, rectangle.right, rectangle.top
        owner = pdfium.FPDFText_GetTextObject(layer, k)
        key = ctypes.cast(owner, ctypes.c_void_p).value or 0
        if key:  # glyphs that pdfium adds, such as spaces, have no owner: they look like the one before
            if key not in styles:
                styles[key] = _style(pdfium, layer, k, owner, turn)
            style = styles[key]
        sizes[k], bold[k], angles[k] = style
    return Glyphs("".join(text), _shown(boxes, transform), sizes, bold, angles)


def _style(pdfium: Any, layer: Any, k: int, owner: Any, turn: float) -> tuple[float, bool, float]:
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(layer, k, ctypes.byref(matrix))
    scale = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c)) or 1.0
    size = pdfium.FPDFText_GetFontSize(layer, k) * scale
    name = ctypes.create_string_buffer(128)
    flags = ctypes.c_int()
    pdfium.FPDFText_GetFontInfo(layer, k, name, 128, ctypes.byref(flags))
    font = name.value.decode("utf-8", "replace").lower()
    weight = pdfium.FPDFText_GetFontWeight(layer, k)
    words = ("bold", "black", "heavy", "demi", "cmbx", "sfbx", "-medi", "nimbusromno9l-medi")
    is_bold = weight >= BOLD_WEIGHT or bool(flags.value & _FORCE_BOLD) or any(w in font for w in words)
    angle = turn - math.degrees(pdfium.FPDFText_GetCharAngle(layer, k))
    return float(min(size, 1000.0)), is_bold, (angle + 180) % 360 - 180


def _character(code: int) -> str:
    if code in _HYPHENS:
        return _HYPHENS[code]
    if code in (0x0D, 0x00) or 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
        return _REPLACEMENT if code not in (0x0D, 0x00) else " "
    return chr(code)


def _shown(boxes: np.ndarray, transform: np.ndarray) -> np.ndarray:
    xs, ys = boxes[:, [0, 2]], boxes[:, [1, 3]]
    first = transform[:, 0:1] * xs[:, 0] + transform[:, 1:2] * ys[:, 0] + transform[:, 2:3]
    second = transform[:, 0:1] * xs[:, 1] + transform[:, 1:2] * ys[:, 1] + transform[:, 2:3]
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.stack([low[0], low[1], high[0], high[1]], axis=1).astype(np.float32)
