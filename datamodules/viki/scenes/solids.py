"""Triangle meshes of turned, bent and cut-out solids: what the objects of a kitchen are made of. Metres, z up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Profile = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mesh:
    """Vertices float64 [V, 3] and triangles int32 [F, 3], counter-clockwise as seen from outside."""

    vertices: np.ndarray
    faces: np.ndarray


def turned(profile: Profile, num_sides: int = 20, lobes: Callable[[np.ndarray], np.ndarray] | None = None) -> Mesh:
    """A solid of revolution about z.

    Args:
        profile: (radius, height) from the bottom of the axis to its top, along the outside; a hollow one goes on down
            the inside.
        num_sides: corners of a circle.
        lobes: factor of the radius for each angle (radians, [num_sides]), such as a pumpkin's ribs.
    """
    angles = np.linspace(0, 2 * np.pi, num_sides, endpoint=False)
    factor = lobes(angles) if lobes else np.ones(num_sides)
    rings = [
        np.stack([r * factor * np.cos(angles), r * factor * np.sin(angles), np.full(num_sides, z)], 1)
        for r, z in profile
    ]
    return _skin(np.stack(rings))


def turned_ring(profile: Profile, num_sides: int = 26) -> Mesh:
    """As `turned`, for a ring about the axis: the profile (radius, height) goes once round its cross-section."""
    closed = turned([*profile, profile[0]], num_sides)
    return Mesh(closed.vertices[:-2], closed.faces[: -2 * num_sides])


def bent(path: np.ndarray, radii: Sequence[float] | float, num_sides: int = 10, closed: bool = False) -> Mesh:
    """A tube along a path [N, 3] with a radius at each point; its ends are capped unless it is closed to a ring."""
    path = np.asarray(path, np.float64)
    radius = np.broadcast_to(np.asarray(radii, np.float64), len(path))
    tangents = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    across = np.linalg.svd(path - path.mean(0))[2][2]  # normal of the plane that the path lies in
    angles = np.linspace(0, 2 * np.pi, num_sides, endpoint=False)
    rings = []
    for point, tangent, r in zip(path, tangents, radius, strict=True):
        side = np.cross(across, tangent)
        side /= np.linalg.norm(side)
        up = np.cross(tangent, side)
        rings.append(point + r * (np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * up))
    if closed:
        rings.append(rings[0])
    return _skin(np.stack(rings), caps=not closed)


def arc(radius: float, start_deg: float, end_deg: float, num_points: int = 12, axes: str = "xz") -> np.ndarray:
    """Points [num_points, 3] on a circle about the origin in the plane of two axes."""
    angles = np.radians(np.linspace(start_deg, end_deg, num_points))
    points = np.zeros((num_points, 3))
    points[:, "xyz".index(axes[0])], points[:, "xyz".index(axes[1])] = radius * np.cos(angles), radius * np.sin(angles)
    return points


def cut_out(outline: Sequence[tuple[float, float]], thickness: float) -> Mesh:
    """A plate of a star-shaped outline [(x, y), ...], counter-clockwise, from z = 0 to `thickness`."""
    flat = np.array(outline, np.float64)
    rings = [np.c_[flat, np.full(len(flat), z)] for z in (0.0, thickness)]
    return _skin(np.stack(rings))


def turn(mesh: Mesh, axis: str, degrees: float) -> Mesh:
    """The mesh turned about a coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return Mesh(mesh.vertices @ matrix.T, mesh.faces)


def shift(mesh: Mesh, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
    """The mesh moved."""
    return Mesh(mesh.vertices + np.array([x, y, z]), mesh.faces)


def stretch(mesh: Mesh, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Mesh:
    """The mesh scaled along its axes by positive factors."""
    return Mesh(mesh.vertices * np.array([x, y, z]), mesh.faces)


def box(x: float, y: float, z: float) -> Mesh:
    """A block of full sizes, its middle at the origin."""
    return shift(cut_out([(-x / 2, -y / 2), (x / 2, -y / 2), (x / 2, y / 2), (-x / 2, y / 2)], z), z=-z / 2)


def ball(x: float, y: float, z: float, num_sides: int = 14) -> Mesh:
    """An ellipsoid of full sizes, its middle at the origin."""
    heights = np.linspace(-np.pi / 2, np.pi / 2, num_sides // 2 + 1)
    profile = [(0.5 * float(np.cos(h)), 0.5 * float(np.sin(h))) for h in heights]
    return stretch(turned(profile, num_sides), x, y, z)


def rod(start: Sequence[float], end: Sequence[float], radius: float, num_sides: int = 8) -> Mesh:
    """A straight round bar between two points."""
    first, last = np.array(start, np.float64), np.array(end, np.float64)
    along = (last - first) / np.linalg.norm(last - first)
    side = np.cross(along, np.eye(3)[np.abs(along).argmin()])
    side /= np.linalg.norm(side)
    up = np.cross(along, side)
    angles = np.linspace(0, 2 * np.pi, num_sides, endpoint=False)
    ring = radius * (np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * up)
    return _skin(np.stack([first + ring, last + ring]))


def _skin(rings: np.ndarray, caps: bool = True) -> Mesh:
    """Triangles between rings of points [R, S, 3], and over the first and last of them."""
    num_rings, num_sides, _ = rings.shape
    vertices = rings.reshape(-1, 3)
    index = np.arange(num_rings * num_sides).reshape(num_rings, num_sides)
    faces = []
    for low, high in pairwise(index):
        a, b, c, d = low, np.roll(low, -1), np.roll(high, -1), high
        faces += [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    if caps:
        middles = len(vertices) + np.arange(2)
        vertices = np.concatenate([vertices, rings[[0, -1]].mean(1)])
        first, last = index[0], index[-1]
        faces.append(np.stack([np.roll(first, -1), first, np.full(num_sides, middles[0])], 1))
        faces.append(np.stack([last, np.roll(last, -1), np.full(num_sides, middles[1])], 1))
    return Mesh(vertices, np.concatenate(faces).astype(np.int32))
