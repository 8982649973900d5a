"""MiniWorld as a second engine of the synthetic set: a true perspective camera in furnished rooms, rendered off screen.

MiniWorld (Apache-2.0, `pip install miniworld`) is asked for pictures only; the camera is put where the chord's nominal
trajectory wants it. A metre counts as 48 map units, so that its rooms are as large as Doom's and one `SpeedLimits`
serves both. Its world has y up; ours is Doom's: x as MiniWorld's, y = -z, z = y.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np

from ...registry import UserError
from .actions import DEFAULT_LIMITS, Chord, SpeedLimits
from .camera import PITCH_RANGE_DEG, PinholeCamera, doom_c2w, pitched
from .chord_policy import path_of
from .doom import Shot
from .episode import Episode
from .synthetic import SPEEDS, flight_meta, fly_at_all_speeds
from .take import Take
from .units import Unit

LAYOUTS = {
    "fourrooms": "FourRooms",
    "maze": "Maze",
    "oneroom": "OneRoom",
    "roomobjects": "RoomObjects",
    "sidewalk": "Sidewalk",
    "threerooms": "ThreeRooms",
    "wallgap": "WallGap",
}
"""Room layouts and their classes in `miniworld.envs`."""
UNITS_PER_METRE = 48.0
VERTICAL_FOV_DEG = 60.0
_VIEW_HEIGHTS_M = (0.8, 1.2, 1.5, 2.0)
_MARGIN_M = 0.35  # between the camera and walls or things
_ATTEMPTS = 8


class MiniWorldEngine:
    """One room layout at a time; a context manager.

    Args:
        height: rows of the pictures.
        width: columns of the pictures.
        limits: what a fraction of 1 on a chord's axes means.

    Raises:
        UserError: if MiniWorld is not installed, or there is no off-screen OpenGL (EGL).
    """

    def __init__(self, *, height: int, width: int, limits: SpeedLimits = DEFAULT_LIMITS) -> None:
        self.height, self.width, self.limits = height, width, limits
        self.about = {"game": "miniworld", "engine": "miniworld", "camera": "pinhole", "pose_source": "engine"}
        self._envs: dict[str, Any] = {}
        self._env: Any = None
        self._view = (0.0, 0.0, 0.0, 0.0, 0.0)
        _import_headless()

    def __enter__(self) -> MiniWorldEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the windows back."""
        for env in self._envs.values():
            env.close()
        self._envs = {}

    def load(self, layout: str, seed: int) -> Rooms:
        """Build a layout afresh with textures, light and furniture drawn from the seed.

        Raises:
            UserError: if there is no such layout.
        """
        if layout not in LAYOUTS:
            raise UserError(f"MiniWorld has no layout '{layout}'\nlayouts: {' '.join(LAYOUTS)}")
        with contextlib.redirect_stdout(io.StringIO()):  # it says on which sampling it falls back
            if layout not in self._envs:
                make = getattr(importlib.import_module("miniworld.envs"), LAYOUTS[layout])
                # rendered twice as large and made small by area, as Doom's pictures are
                self._envs[layout] = make(obs_width=2 * self.width, obs_height=2 * self.height, domain_rand=True)
            self._env = self._envs[layout]
            self._env.reset(seed=seed)
        agent = self._env.agent
        agent.cam_fov_y, agent.cam_fwd_disp = VERTICAL_FOV_DEG, 0.0
        return Rooms(self._env)

    def place(self, x: float, y: float, z: float, angle_deg: float) -> bool:
        """Put the camera somewhere (map units), level; always succeeds."""
        self._view = (x, y, z, angle_deg, 0.0)
        return True

    def pose(self) -> tuple[float, float, float, float]:
        """x, y (map units), heading and pitch (degrees)."""
        x, y, _, angle_deg, pitch_deg = self._view
        return x, y, angle_deg, pitch_deg

    def drive(self, chord: Chord) -> Shot:
        """One frame with the chord's keys held; nothing stops the camera."""
        x, y, z, angle_deg, pitch_deg = self._view
        _, _, turn, look = chord.axes()
        (x, y), angle_deg = path_of(chord, x, y, angle_deg, 1, self.limits)[0], angle_deg + turn * self.limits.turn_deg
        pitch_deg = min(max(pitch_deg - look * self.limits.look_deg, PITCH_RANGE_DEG[0]), PITCH_RANGE_DEG[1])
        self._view = (float(x), float(y), z, angle_deg, pitch_deg)
        agent = self._env.agent
        agent.pos = np.array([x / UNITS_PER_METRE, 0.0, -y / UNITS_PER_METRE])
        agent.cam_height, agent.dir = z / UNITS_PER_METRE, math.radians(angle_deg)
        agent.cam_pitch = -pitch_deg  # MiniWorld's grows upwards
        frame = cv2.resize(self._env.render_obs(), (self.width, self.height), interpolation=cv2.INTER_AREA)
        return Shot(frame, *self._view)

    def depth(self) -> np.ndarray:
        """Forward distance of what the last picture shows, float [2H, 2W], map units."""
        depth_HW: np.ndarray = self._env.render_depth()[..., 0] * UNITS_PER_METRE
        return depth_HW

    def cameras(self, views_N5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K float64 [N,3,3] and absolute c2w float64 [N,4,4] in camera units, of rows of x, y, z, heading and pitch."""
        x_N, y_N, z_N, angle_N, pitch_N = views_N5.T
        camera = PinholeCamera(self.height, self.width, VERTICAL_FOV_DEG)
        return camera.intrinsics(pitch_N), pitched(doom_c2w(x_N, y_N, z_N, angle_N, self.limits.unit_scale), pitch_N)


class Rooms:
    """A layout as built: where the camera may be, and what captions say of it.

    Args:
        env: MiniWorld's environment.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        texture = max((room.wall_tex_name for room in env.rooms), key=[r.wall_tex_name for r in env.rooms].count)
        self.material = next((m for m in ("brick", "metal", "wood", "marble", "rock") if m in texture), "stone")

    def sky_at(self, points_P2: np.ndarray) -> np.ndarray:
        """Whether there is no ceiling at each point, bool; points outside the rooms are left out."""
        rooms = [self._room_at(point_2) for point_2 in points_P2]
        return np.array([room.no_ceiling for room in rooms if room is not None], dtype=bool)

    def _room_at(self, point_2: np.ndarray) -> Any:
        at_3 = np.array([point_2[0], 0.0, -point_2[1]]) / [UNITS_PER_METRE, 1.0, UNITS_PER_METRE]
        return next((room for room in self._env.rooms if room.point_inside(at_3)), None)

    def free(self, path_P2: np.ndarray) -> bool:
        """Whether a path (map units) keeps inside the rooms and off walls and things."""
        for point_2 in path_P2[::2]:
            at_3 = np.array([point_2[0] / UNITS_PER_METRE, 0.0, -point_2[1] / UNITS_PER_METRE])
            if self._room_at(point_2) is None or self._env.intersect(self._env.agent, at_3, _MARGIN_M):
                return False
        return True

    def draw_point(self, rng: np.random.Generator) -> np.ndarray | None:
        """A random free spot [2] in map units; None if 200 tries find none."""
        low = np.array([self._env.min_x, -self._env.max_z]) * UNITS_PER_METRE
        high = np.array([self._env.max_x, -self._env.min_z]) * UNITS_PER_METRE
        for _ in range(200):
            point_2: np.ndarray = rng.uniform(low, high)
            if self.free(point_2[None]):
                return point_2
        return None


def record_rooms(engine: MiniWorldEngine, unit: Unit, rejected: Counter[str]) -> Iterator[Episode]:
    """Episodes of a unit: three speeds from each start, the motions drawn alike; each a pure function of the unit.

    Args:
        engine: the engine.
        unit: what to record; its map is a layout.
        rejected: counts, by filter, what was thrown away; added to.
    """
    rng = unit.generator()
    world = engine.load(unit.map, int(rng.integers(2**31)))
    height = _VIEW_HEIGHTS_M[unit.index % len(_VIEW_HEIGHTS_M)] * UNITS_PER_METRE
    made = 0
    for _ in range(_ATTEMPTS * -(-unit.num_episodes // len(SPEEDS))):
        spot = world.draw_point(rng) if made < unit.num_episodes else None
        if spot is None:
            return
        start = partial(engine.place, float(spot[0]), float(spot[1]), height, float(rng.uniform(0, 360)))
        takes: list[Take] = fly_at_all_speeds(
            engine, unit.num_clips, start, world.free, int(rng.integers(2**31)), rejected
        )
        for take, speed in list(zip(takes, SPEEDS, strict=False))[: unit.num_episodes - made]:
            yield take.episode(unit.key(made), world, flight_meta(unit, speed, height))
            made += 1


def _import_headless() -> None:
    try:
        # must be set before a window's module is imported
        importlib.import_module("pyglet").options["headless"] = True
        importlib.import_module("miniworld.envs")
    except ImportError as error:
        raise UserError(f"MiniWorld's rooms need a package that is missing ({error})\npip install miniworld") from None
    except Exception as error:  # the OpenGL library, in whatever way it fails
        raise UserError(
            f"MiniWorld finds no off-screen OpenGL: {type(error).__name__}: {error}\n"
            "It needs EGL (Debian: apt install libegl1 libgl1 libglu1-mesa); or leave --miniworld_frames at 0."
        ) from None
