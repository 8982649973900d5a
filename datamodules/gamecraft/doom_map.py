"""A Doom map as read from its WAD file: where a camera can stand, what blocks it, what it is made of.

Reads the lumps of the classic binary format only (VERTEXES, LINEDEFS, SIDEDEFS, SECTORS, THINGS), which all maps of
Freedoom have. Lengths are map units; arrays of points are [P,2].
"""

from __future__ import annotations

import functools
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLAYER_RADIUS, PLAYER_HEIGHT, STEP_HEIGHT = 16.0, 56.0, 24.0
_LUMPS = {
    "THINGS": np.dtype([("xy", "<i2", 2), ("angle", "<i2"), ("type", "<i2"), ("flags", "<i2")]),
    "LINEDEFS": np.dtype(
        [("ends", "<u2", 2), ("flags", "<u2"), ("special", "<u2"), ("tag", "<u2"), ("sides", "<u2", 2)]
    ),
    "SIDEDEFS": np.dtype([("offset", "<i2", 2), ("textures", "S8", 3), ("sector", "<u2")]),
    "VERTEXES": np.dtype(("<i2", 2)),
    "SECTORS": np.dtype(
        [
            ("floor", "<i2"),
            ("ceiling", "<i2"),
            ("flats", "S8", 2),
            ("light", "<i2"),
            ("special", "<i2"),
            ("tag", "<i2"),
        ]
    ),
}
_NO_SIDE, _IMPASSABLE = 0xFFFF, 1
_NEAR = 160.0  # map units within which `clearance` looks
_EXIT_SPECIALS = (52, 124)  # walking over such a line ends the level
# how names of Doom's wall textures begin -> what such a wall is made of
_MATERIALS = {
    "brick": ("BRICK", "BIGBRIK", "BSTONE", "BRICKLIT", "BRONZE", "BRWINDOW", "PANBLACK", "PANBLUE", "PANRED"),
    "metal": ("METAL", "SUPPORT", "SHAWN", "SILVER", "SLAD", "PIPE", "TEKGREN", "TEKLITE", "TEKBRON", "SPACEW", "DOOR"),
    "tech": ("STARTAN", "STARG", "STARBR", "STARGR", "COMP", "TEKWALL", "LITE", "CEMENT", "GRAY", "PLAT", "BROWN"),
    "wood": ("WOOD", "PANEL", "PANBOOK", "PANCASE", "CRATE"),
    "marble": ("MARB", "GSTONE", "GSTVINE", "SP_HOT"),
    "rock": ("ROCK", "ASHWALL", "TANROCK", "ZIMMER", "CRACKLE", "SP_ROCK", "ZELDOOR", "ICKWALL", "NUKE", "BLAKWAL"),
    "stone": ("STONE", "STUCCO", "MODWALL", "STEP", "BFALL", "SFALL", "BLOD", "FIRE", "SKIN", "SK_", "SKSP", "SKSN"),
}


def read_lumps(wad: Path, map_name: str) -> dict[str, bytes]:
    """The lumps of one map.

    Raises:
        KeyError: if the WAD has no such map.
    """
    with open(wad, "rb") as file:
        _, count, where = struct.unpack("<4sii", file.read(12))
        file.seek(where)
        directory = np.frombuffer(file.read(16 * count), dtype=[("offset", "<i4"), ("size", "<i4"), ("name", "S8")])
        found = np.flatnonzero(directory["name"] == map_name.upper().encode())
        if not len(found):
            raise KeyError(map_name)
        lumps = {}
        for entry in directory[found[0] + 1 : found[0] + 11]:
            name = entry["name"].decode("latin1")
            if name in _LUMPS:
                file.seek(int(entry["offset"]))
                lumps[name] = file.read(int(entry["size"]))
    return lumps


@dataclass(frozen=True)
class DoomMap:
    """Lines and sectors of a map; L lines.

    Attributes:
        start_L2, end_L2: ends of every line, float64.
        sectors_L2: sector on the right and on the left of each line, -1 where there is none.
        blocking_L: whether a walker can't cross the line, by doors' and lifts' heights at the level's start.
        exits_L: whether crossing the line ends the level.
        floor_S, ceiling_S, light_S: height of each sector's floor and ceiling, and its light, 0 to 255.
        sky_S: whether a sector's ceiling is sky.
        material: what most of the map's walls are made of.
        solids_T2: where things stand that block (pillars, trees, barrels), by a generous guess.
    """

    start_L2: np.ndarray
    end_L2: np.ndarray
    sectors_L2: np.ndarray
    blocking_L: np.ndarray
    exits_L: np.ndarray
    floor_S: np.ndarray
    ceiling_S: np.ndarray
    light_S: np.ndarray
    sky_S: np.ndarray
    material: str
    solids_T2: np.ndarray

    def sector_at(self, points_P2: np.ndarray) -> np.ndarray:
        """Sector of each point, int [P]; -1 outside the map.

        A point is inside where a ray from it crosses an odd number of one-sided lines; its sector is that of the
        nearest crossed line's facing side.
        """
        y_P1 = points_P2[:, 1:2] + 1e-3  # off the whole numbers on which vertices lie
        low_L, high_L = self.start_L2, self.end_L2
        crosses_PL = (low_L[:, 1] > y_P1) != (high_L[:, 1] > y_P1)
        with np.errstate(divide="ignore", invalid="ignore"):
            along_PL = (y_P1 - low_L[:, 1]) / (high_L[:, 1] - low_L[:, 1])
            x_PL = low_L[:, 0] + along_PL * (high_L[:, 0] - low_L[:, 0])
        crosses_PL &= x_PL > points_P2[:, 0:1]
        solid_L = (self.sectors_L2 < 0).any(1)
        inside_P = (crosses_PL & solid_L).sum(1) % 2 == 1
        nearest_P = np.where(crosses_PL, x_PL, np.inf).argmin(1)
        # we look along +x: a line that runs upwards (dy > 0) shows its left side to us
        rises_P = high_L[nearest_P, 1] > low_L[nearest_P, 1]
        return np.where(inside_P, self.sectors_L2[nearest_P, rises_P.astype(int)], -1)

    def sky_at(self, points_P2: np.ndarray) -> np.ndarray:
        """Whether a sky is the ceiling above each point, bool; points outside the map are left out."""
        sector_P = self.sector_at(points_P2)
        return self.sky_S[sector_P[sector_P >= 0]]

    def clearance(self, points_P2: np.ndarray, *, walls_only: bool = False) -> np.ndarray:
        """Distance [P] from each point to the nearest line that blocks a walker, infinite if none is near.

        Args:
            points_P2: points that lie not too far from each other.
            walls_only: only one-sided lines count.
        """
        low, high = points_P2.min(0) - _NEAR, points_P2.max(0) + _NEAR
        near_L = (np.maximum(self.start_L2, self.end_L2) >= low).all(1) & (
            np.minimum(self.start_L2, self.end_L2) <= high
        ).all(1)
        lines = near_L & ((self.sectors_L2 < 0).any(1) if walls_only else self.blocking_L)
        (ax_L, ay_L), (bx_L, by_L) = self.start_L2[lines].T, self.end_L2[lines].T
        dx_L, dy_L = bx_L - ax_L, by_L - ay_L
        x_P1, y_P1 = points_P2[:, :1], points_P2[:, 1:]
        t_PL = ((x_P1 - ax_L) * dx_L + (y_P1 - ay_L) * dy_L) / np.maximum(dx_L**2 + dy_L**2, 1e-9)
        np.clip(t_PL, 0, 1, out=t_PL)
        square_PL = (x_P1 - ax_L - t_PL * dx_L) ** 2 + (y_P1 - ay_L - t_PL * dy_L) ** 2
        nearest_P = np.sqrt(square_PL.min(1, initial=np.inf))
        if not walls_only and len(self.solids_T2):
            square_PT = (x_P1 - self.solids_T2[:, 0]) ** 2 + (y_P1 - self.solids_T2[:, 1]) ** 2
            nearest_P = np.minimum(nearest_P, np.sqrt(square_PT.min(1)) - PLAYER_RADIUS)
        return nearest_P

    def crosses_exit(self, points_P2: np.ndarray) -> bool:
        """Whether a path of points comes within 32 units of a line that ends the level."""
        if not self.exits_L.any():
            return False
        middle_L2 = (self.start_L2 + self.end_L2)[self.exits_L] / 2
        reach_L = np.sqrt(((self.end_L2 - self.start_L2)[self.exits_L] ** 2).sum(1)) / 2 + 32
        return bool((np.sqrt(((points_P2[:, None] - middle_L2) ** 2).sum(2)) < reach_L).any())

    def draw_point(self, rng: np.random.Generator, clearance: float, *, walls_only: bool = False) -> np.ndarray | None:
        """A random spot [2], on whole numbers, at least `clearance` (at most 160) from what blocks, with room to stand.

        None if 2,000 tries find none.
        """
        low, high = self.start_L2.min(0), self.start_L2.max(0)
        for _ in range(50):
            points_P2 = rng.integers(low, high + 1, size=(40, 2)).astype(np.float64)
            sector_P = self.sector_at(points_P2)
            room_P = np.where(sector_P >= 0, self.ceiling_S[sector_P] - self.floor_S[sector_P], 0)
            points_P2 = points_P2[room_P >= PLAYER_HEIGHT + 8]
            for point_12 in points_P2[:, None]:
                if self.clearance(point_12, walls_only=walls_only)[0] >= clearance:
                    return point_12[0]
        return None


@functools.cache
def load_map(wad: Path, map_name: str) -> DoomMap:
    """Read a map; kept in memory for the process."""
    lumps = read_lumps(wad, map_name)
    things, lines, sides, vertices, sectors = (np.frombuffer(lumps[n], dtype=d) for n, d in _LUMPS.items())
    ends_L22 = vertices[lines["ends"]].astype(np.float64)
    has_L2 = lines["sides"] != _NO_SIDE
    side_L2 = np.where(has_L2, lines["sides"], 0)
    sectors_L2 = np.where(has_L2, sides["sector"][side_L2].astype(np.int64), -1)
    floor_S, ceiling_S = sectors["floor"].astype(np.float64), sectors["ceiling"].astype(np.float64)
    floor_L2, ceiling_L2 = floor_S[sectors_L2], ceiling_S[sectors_L2]
    step_L = np.abs(floor_L2[:, 0] - floor_L2[:, 1])
    room_L = ceiling_L2.min(1) - floor_L2.max(1)
    # a drop blocks too: falling is motion that no key commands
    blocking_L = ~has_L2.all(1) | (lines["flags"] & _IMPASSABLE > 0) | (step_L > STEP_HEIGHT) | (room_L < PLAYER_HEIGHT)
    # decorations have numbers from 25 to 86 (Doom's table of things) and 2035 is the barrel
    kinds = things["type"]
    solids_T2 = things["xy"][((kinds >= 25) & (kinds <= 86) & (kinds != 34)) | (kinds == 2028) | (kinds == 2035)]
    return DoomMap(
        start_L2=ends_L22[:, 0],
        end_L2=ends_L22[:, 1],
        sectors_L2=sectors_L2,
        blocking_L=blocking_L,
        exits_L=np.isin(lines["special"], _EXIT_SPECIALS),
        floor_S=floor_S,
        ceiling_S=ceiling_S,
        light_S=sectors["light"].astype(np.float64),
        sky_S=np.char.startswith(sectors["flats"][:, 1], b"F_SKY"),
        material=_material(ends_L22, has_L2, sides["textures"][side_L2]),
        solids_T2=solids_T2.astype(np.float64),
    )


def _material(ends_L22: np.ndarray, has_L2: np.ndarray, textures_L23: np.ndarray) -> str:
    length_L = np.sqrt(((ends_L22[:, 1] - ends_L22[:, 0]) ** 2).sum(1))
    weight_L23 = np.broadcast_to((length_L[:, None] * has_L2)[..., None], textures_L23.shape)
    names, index_L23 = np.unique(textures_L23, return_inverse=True)
    votes: Counter[str] = Counter()
    for name, weight in zip(names, np.bincount(index_L23.ravel(), weight_L23.ravel()), strict=True):
        word = name.decode("latin1").upper()
        if word != "-":
            votes[next((m for m, starts in _MATERIALS.items() if word.startswith(starts)), "stone")] += weight
    return votes.most_common(1)[0][0] if votes else "stone"
