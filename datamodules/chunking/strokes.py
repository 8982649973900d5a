"""Straight strokes that a page draws: the rules of tables, whether lines, thin filled boxes or edges of boxes."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pages import display_transform

MAX_OBJECTS = 20_000
MAX_SEGMENTS = 200  # of one path; a longer one is a drawing
MAX_DEPTH = 4
THIN_POINTS = 2.5
MIN_LENGTH = 6.0


@dataclass(frozen=True)
class Stroke:
    """A horizontal (y0 = y1) or vertical (x0 = x1) stroke, in points from the shown page's top left."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def horizontal(self) -> bool:
        """Whether it lies."""
        return self.y0 == self.y1


def read_strokes(page: Any, width: float, height: float) -> tuple[Stroke, ...]:
    """Strokes of an open pdfium page that lie on the page, at most those of its first `MAX_OBJECTS` objects."""
    import pypdfium2.raw as pdfium

    transform = np.vstack([display_transform(page, width, height), [0, 0, 1]])
    found: list[Stroke] = []
    budget = [MAX_OBJECTS]
    count = pdfium.FPDFPage_CountObjects(page.raw)
    for k in range(min(count, MAX_OBJECTS)):
        _collect(pdfium, pdfium.FPDFPage_GetObject(page.raw, k), transform, found, budget, 0)
    return tuple(s for s in found if s.x0 >= 0 and s.x1 <= width + 1 and s.y0 >= 0 and s.y1 <= height + 1)


def _matrix(pdfium: Any, item: Any) -> np.ndarray:
    m = pdfium.FS_MATRIX()
    if not pdfium.FPDFPageObj_GetMatrix(item, ctypes.byref(m)):
        return np.eye(3)
    return np.array([[m.a, m.c, m.e], [m.b, m.d, m.f], [0, 0, 1]])


def _collect(pdfium: Any, item: Any, transform: np.ndarray, found: list[Stroke], budget: list[int], depth: int) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        return
    kind = pdfium.FPDFPageObj_GetType(item)
    if kind == pdfium.FPDF_PAGEOBJ_FORM and depth < MAX_DEPTH:
        inner = transform @ _matrix(pdfium, item)
        for k in range(min(pdfium.FPDFFormObj_CountObjects(item), MAX_OBJECTS)):
            _collect(pdfium, pdfium.FPDFFormObj_GetObject(item, k), inner, found, budget, depth + 1)
    elif kind == pdfium.FPDF_PAGEOBJ_PATH:
        _of_path(pdfium, item, transform @ _matrix(pdfium, item), found)


def _of_path(pdfium: Any, path: Any, transform: np.ndarray, found: list[Stroke]) -> None:
    count = pdfium.FPDFPath_CountSegments(path)
    if not 2 <= count <= MAX_SEGMENTS:
        return
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDFPath_GetDrawMode(path, ctypes.byref(fill), ctypes.byref(stroke))
    if not (fill.value or stroke.value):
        return
    x, y = ctypes.c_float(), ctypes.c_float()
    subpaths: list[list[tuple[float, float]]] = []
    for k in range(count):
        segment = pdfium.FPDFPath_GetPathSegment(path, k)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_BEZIERTO:
            return
        pdfium.FPDFPathSegment_GetPoint(segment, ctypes.byref(x), ctypes.byref(y))
        point = (transform @ np.array([x.value, y.value, 1.0]))[:2]
        if kind == pdfium.FPDF_SEGMENT_MOVETO or not subpaths:
            subpaths.append([])
        subpaths[-1].append((float(point[0]), float(point[1])))
        if pdfium.FPDFPathSegment_GetClose(segment):
            subpaths[-1].append(subpaths[-1][0])
    for points in subpaths:
        _of_points(points, bool(stroke.value), found)


def _of_points(points: list[tuple[float, float]], stroked: bool, found: list[Stroke]) -> None:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    if x1 - x0 <= THIN_POINTS or y1 - y0 <= THIN_POINTS:  # a line, or a filled box that looks like one
        _add(x0, y0, x1, y1, found)
    elif stroked:
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            if abs(ax - bx) < 0.5 or abs(ay - by) < 0.5:
                _add(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by), found)


def _add(x0: float, y0: float, x1: float, y1: float, found: list[Stroke]) -> None:
    if x1 - x0 >= y1 - y0:
        if x1 - x0 >= MIN_LENGTH:
            middle = (y0 + y1) / 2
            found.append(Stroke(x0, middle, x1, middle))
    elif y1 - y0 >= MIN_LENGTH:
        middle = (x0 + x1) / 2
        found.append(Stroke(middle, y0, middle, y1))
