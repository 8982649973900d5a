"""ViZDoom as a camera that obeys chords: headless, no HUD, exact poses, and motion without inertia.

Doom's player speeds up and slows down over many tics; an action of this project is a constant speed from its first
frame on (`camera.trajectory`). So a small patch file gives the player ten times the usual thrust, and `drive` gives
each tic the thrust that brings the camera to where the chord wants it next: free-space motion then follows the nominal
trajectory to 0.2 map units, and turns to 0.006 degrees. What is recorded are the poses read back from the engine.

Pictures: `r_visibility 16` (light reaches farther) and a gamma of 1.4 on the finished picture, since Freedoom is dark.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from ...registry import UserError, install_line
from .actions import DEFAULT_LIMITS, Chord, SpeedLimits
from .camera import PITCH_RANGE_DEG, ShearPitchCamera, doom_c2w
from .doom_map import DoomMap, load_map

GAMES = {
    "freedoom1": tuple(f"e{episode}m{number}" for episode in range(1, 5) for number in range(1, 10)),
    "freedoom2": tuple(f"map{number:02d}" for number in range(1, 33)),
}
"""The games inside ViZDoom's package (Freedoom 0.13, modified BSD licence) and their maps."""
GAMMA = 1.4
VIEW_HEIGHT = 41
_THRUST = 0.3125  # map units per tic that one step of a move button adds, with the patch's factor of ten
_MAX_STEPS = 50
_SETTLE_TICS = 15  # a new player can't turn for the first few, and the view comes to rest on the floor
_PATCH = """
ACTOR Camera : DoomPlayer {{
  Player.DisplayName "Camera" Player.ForwardMove 10, 10 Player.SideMove 10, 10 Player.ViewHeight {view_height}
  -PICKUP -CANPUSHWALLS +INVULNERABLE +NOTELEPORT +NOTARGET {flags}
}}
"""
_ARGUMENTS = (
    "+freelook 1 +sv_cheats 1 +movebob 0 +stillbob 0 +r_visibility 16 +sv_aircontrol 1 "
    "+con_notifytime 0 +show_messages 0 +con_midtime 0 +cl_showsecretmessage 0"
)


class LevelEnded(Exception):
    """The game left the level by itself, such as over an exit line."""


@dataclass(frozen=True)
class Shot:
    """One picture and the camera that took it.

    Attributes:
        frame_HW3: uint8, RGB.
        x, y, z: camera centre, map units.
        angle_deg: heading, grows to the left.
        pitch_deg: positive down.
        depth_HW: uint8 at the engine's own resolution, cropped as the frame is (8 bits, about 7.5 map units a step), or
            None where depth was not asked for.
    """

    frame_HW3: np.ndarray
    x: float
    y: float
    z: float
    angle_deg: float
    pitch_deg: float
    depth_HW: np.ndarray | None = None


def render_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which ViZDoom renders for a picture of (height, width).

    The smallest of its resolutions that is as high as the picture or at least twice as high, and wide enough for a
    centred crop of whole pixels with the picture's shape.

    Raises:
        UserError: if there is none.
    """
    import vizdoom

    sizes = [tuple(int(n) for n in name[4:].split("X")) for name in vizdoom.ScreenResolution.__members__]
    for full_width, full_height in sorted(sizes, key=lambda s: s[0] * s[1]):
        crop, rest = divmod(width * full_height, height)
        fine = full_height == height or full_height >= 2 * height
        if fine and rest == 0 and crop <= full_width and (full_width - crop) % 2 == 0:
            return full_height, full_width
    raise UserError(f"no resolution of ViZDoom gives {height}x{width} (H x W)\ntry 64x112, 128x224, 256x448 or 120x160")


class DoomEngine:
    """One ViZDoom process; a context manager.

    Args:
        game: a name in `GAMES`.
        height: rows of the pictures.
        width: columns of the pictures.
        flying: no clipping and no gravity: the camera keeps its height and goes through everything.
        view_height: of the camera above the floor, map units.
        monsters: leave the monsters in.
        depth: give depth buffers too.
        limits: what a fraction of 1 on a chord's axes means.

    Raises:
        UserError: if ViZDoom is not installed or does not start, or no resolution of it fits the size.
    """

    def __init__(
        self,
        game: str,
        *,
        height: int,
        width: int,
        flying: bool = False,
        view_height: int = VIEW_HEIGHT,
        monsters: bool = False,
        depth: bool = False,
        limits: SpeedLimits = DEFAULT_LIMITS,
    ) -> None:
        try:
            import vizdoom
        except ImportError:
            raise UserError(f"recording needs ViZDoom\n{install_line('gamecraft')}") from None
        self.game, self.height, self.width, self.limits = game, height, width, limits
        self.about = {"game": game, "engine": "vizdoom", "camera": "shear", "pose_source": "engine"}
        self.wad = Path(vizdoom.__file__).parent / f"{game}.wad"
        full_height, full_width = render_size(height, width)
        crop = width * full_height // height
        self._columns = slice((full_width - crop) // 2, (full_width + crop) // 2)
        self._resize = full_height != height
        self._brighter = (255 * (np.arange(256) / 255) ** (1 / GAMMA)).round().astype(np.uint8)
        self._folder = tempfile.TemporaryDirectory(prefix="gamecraft-doom-")
        patch = Path(self._folder.name) / "camera.wad"
        flags = "+NOCLIP Gravity 0 Height 4" if flying else ""  # NOGRAVITY would make it bob up and down
        _write_wad(
            patch,
            {
                "DECORATE": _PATCH.format(view_height=view_height, flags=flags),
                "ZMAPINFO": 'gameinfo { playerclasses = "Camera" }\n',
            },
        )
        button, variable = vizdoom.Button, vizdoom.GameVariable
        doom = self._doom = vizdoom.DoomGame()
        doom.set_doom_game_path(str(self.wad))
        doom.set_doom_scenario_path(str(patch))
        doom.set_doom_config_path(str(Path(self._folder.name) / "config.ini"))
        self._map = GAMES[game][0]
        doom.set_doom_map(self._map)
        doom.set_screen_resolution(vizdoom.ScreenResolution.__members__[f"RES_{full_width}X{full_height}"])
        doom.set_screen_format(vizdoom.ScreenFormat.RGB24)
        doom.set_depth_buffer_enabled(depth)
        for part in ("hud", "weapon", "crosshair", "messages", "screen_flashes", "corpses"):
            getattr(doom, f"set_render_{part}")(False)
        doom.set_window_visible(False)
        doom.set_sound_enabled(False)
        doom.set_mode(vizdoom.Mode.PLAYER)
        doom.set_episode_timeout(0)
        doom.set_available_buttons(
            [
                button.MOVE_FORWARD_BACKWARD_DELTA,
                button.MOVE_LEFT_RIGHT_DELTA,
                button.TURN_LEFT_RIGHT_DELTA,
                button.LOOK_UP_DOWN_DELTA,
            ]
        )
        # the camera is all that is read, in one call a tic
        names = "CAMERA_POSITION_X CAMERA_POSITION_Y CAMERA_POSITION_Z CAMERA_ANGLE CAMERA_PITCH VELOCITY_X VELOCITY_Y"
        doom.set_available_game_variables([variable.__members__[name] for name in names.split()])
        doom.add_game_args(_ARGUMENTS + ("" if monsters else " -nomonsters"))
        try:
            with _working_directory(self._folder.name):  # ViZDoom leaves `_vizdoom/` in it
                doom.init()
        except vizdoom.ViZDoomErrorException as error:
            self._folder.cleanup()
            raise UserError(f"ViZDoom does not start: {error}") from None
        found = _find_engine()
        self.engine_pid = found[0] if found else None
        self._guard = _kill_with_us(*found) if found else None
        self._position, self._velocity, self._read_angle, self._read_pitch = (0.0, 0.0), (0.0, 0.0), 0.0, 0.0
        self._wanted, self._angle, self._pitch = (0.0, 0.0), 0.0, 0.0

    def __enter__(self) -> DoomEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine's process and remove its files."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()  # closes the pipe
            self._guard = None
        self._doom.close()
        self._folder.cleanup()

    def load(self, map_name: str, seed: int) -> DoomMap:
        """Start a map afresh: what follows depends on the seed and on the calls made, and on nothing before.

        Raises:
            UserError: if the game has no such map.
        """
        if map_name not in GAMES[self.game]:
            raise UserError(f"{self.game} has no map '{map_name}'\nmaps: {' '.join(GAMES[self.game])}")
        if map_name != self._map:  # which loads the map a first time
            self._doom.set_doom_map(map_name)
            self._map = map_name
        self._doom.set_seed(seed)
        self._doom.new_episode()
        self._doom.make_action([0, 0, 0, 0], _SETTLE_TICS)
        self._read()
        self._wanted, self._angle, self._pitch = self._position, self._read_angle, self._read_pitch
        return load_map(self.wad, map_name.upper())

    def place(self, x: int, y: int, angle_deg: float, pitch_deg: float = 0.0) -> bool:
        """Put the camera on the floor at a whole-numbered spot, at rest; False if something is in the way.

        Raises:
            LevelEnded: if the level has ended.
        """
        for _ in range(2):  # a warp keeps the speed
            self.drive(Chord.of())
        self._doom.send_game_command(f"warp {x} {y}")
        self._act([0, 0, 0, 0])
        self._act([0, 0, 0, 0])
        self._wanted, self._angle, self._pitch = (float(x), float(y)), angle_deg, pitch_deg
        for _ in range(_SETTLE_TICS):
            shot = self.drive(Chord.of())
        return math.hypot(shot.x - x, shot.y - y) < 1

    def drive(self, chord: Chord) -> Shot:
        """One tic with the chord's keys held, and the picture after it.

        Raises:
            LevelEnded: if the tic ended the level.
        """
        ahead, aside, turn, look = chord.axes()
        if math.dist(self._wanted, self._position) > 1:  # something stopped us: don't save the way up
            self._wanted = self._position
        self._angle += turn * self.limits.turn_deg
        self._pitch = min(max(self._pitch - look * self.limits.look_deg, PITCH_RANGE_DEG[0]), PITCH_RANGE_DEG[1])
        cos, sin = math.cos(math.radians(self._angle)), math.sin(math.radians(self._angle))
        ahead, aside = ahead * self.limits.forward, aside * self.limits.strafe
        (x, y), (speed_x, speed_y) = self._position, self._velocity
        self._wanted = (self._wanted[0] + ahead * cos + aside * sin, self._wanted[1] + ahead * sin - aside * cos)
        push_x, push_y = self._wanted[0] - x - speed_x, self._wanted[1] - y - speed_y
        steps_ahead, steps_aside = _steps(push_x * cos + push_y * sin), _steps(push_x * sin - push_y * cos)
        turn_right = -((self._angle - self._read_angle + 180) % 360 - 180)
        return self._act([steps_ahead, steps_aside, turn_right, self._read_pitch - self._pitch])

    def pose(self) -> tuple[float, float, float, float]:
        """Where the camera is and where it looks: x, y (map units), heading and pitch (degrees)."""
        return (*self._position, self._angle, self._pitch)

    def cameras(self, views_N5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K float64 [N,3,3] and absolute c2w float64 [N,4,4] in camera units, of rows of x, y, z, heading and pitch."""
        x_N, y_N, z_N, angle_N, pitch_N = views_N5.T
        intrinsics_N33 = ShearPitchCamera(self.height, self.width).intrinsics(pitch_N)
        return intrinsics_N33, doom_c2w(x_N, y_N, z_N, angle_N, self.limits.unit_scale)

    def _act(self, buttons: list[float]) -> Shot:
        self._doom.make_action(buttons, 1)
        return self._read()

    def _read(self) -> Shot:
        state: Any = self._doom.get_state()
        if state is None:
            raise LevelEnded
        x, y, z, angle, pitch, speed_x, speed_y = state.game_variables.tolist()
        self._position, self._velocity = (x, y), (speed_x, speed_y)
        self._read_angle, self._read_pitch = angle, pitch
        frame = state.screen_buffer[:, self._columns]
        if self._resize:
            frame = cv2.resize(frame, (self.width, self.height), interpolation=cv2.INTER_AREA)
        depth = None if state.depth_buffer is None else state.depth_buffer[:, self._columns]
        return Shot(cv2.LUT(frame, self._brighter), x, y, z, angle, pitch, depth)


def _steps(thrust: float) -> int:
    return max(-_MAX_STEPS, min(_MAX_STEPS, round(thrust / _THRUST)))


def _write_wad(path: Path, lumps: dict[str, str]) -> None:
    """A patch file of text lumps: header, the lumps, and a directory of (offset, size, name)."""
    body, directory = b"", b""
    for name, text in lumps.items():
        data = text.encode()
        directory += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
    path.write_bytes(struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(body)) + body + directory)


@contextlib.contextmanager
def _working_directory(folder: str) -> Any:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _find_engine() -> tuple[int, str] | None:
    """Process id and instance name of the engine that this process just started; None without a /proc to look in."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in reversed(children.read_text().split()):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if "vizdoom" in Path(words[0]).name and "+viz_instance_id" in words:
                return int(pid), words[words.index("+viz_instance_id") + 1]
    return None


def _kill_with_us(pid: int, instance: str) -> subprocess.Popen[bytes]:
    """A shell that ends the engine, and removes its shared memory, should this process be killed.

    The engine is a process of its own, which would wait for ever for one that was killed. The shell waits on a pipe
    that only we hold.
    """
    command = f"read _; kill -9 {pid}; rm -f /dev/shm/ViZDoom*{instance}"
    return subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, start_new_session=True)
