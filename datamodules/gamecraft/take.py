"""One take: chords held in a running engine, collected into an Episode."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .actions import CLIP_FRAMES, Chord, SpeedLimits
from .captions import captions, colour_of, light_of, place_of, verb_of
from .doom import Shot
from .episode import Episode
from .filters import luminance_fault, motion_fault


class Engine(Protocol):
    """What a take needs of an engine; positions in map units.

    Attributes:
        height: rows of its pictures.
        width: columns.
        limits: what a fraction of 1 on a chord's axes means.
        about: what the `meta` of all its episodes says: game, engine, camera, pose_source.
    """

    height: int
    width: int
    limits: SpeedLimits
    about: dict[str, str]

    def drive(self, chord: Chord) -> Shot:
        """One frame with the chord's keys held."""
        ...

    def pose(self) -> tuple[float, float, float, float]:
        """x, y, heading and pitch."""
        ...

    def cameras(self, views_N5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K [N,3,3] and c2w [N,4,4] of rows of x, y, z, heading and pitch."""
        ...


class Scenery(Protocol):
    """What captions say of a place."""

    @property
    def material(self) -> str:
        """What most walls are made of."""
        ...

    def sky_at(self, points_P2: np.ndarray) -> np.ndarray:
        """Whether the sky is overhead at points inside the map; bool, points outside are left out."""
        ...


class Take:
    """Frames and cameras of consecutive chunks of 33 tics.

    Args:
        engine: where the camera stands ready.
        num_clips: how many chunks there will be.
    """

    def __init__(self, engine: Engine, num_clips: int) -> None:
        self.engine, self.chords = engine, list[Chord]()
        self.frames_NHW3 = np.empty((num_clips * CLIP_FRAMES, engine.height, engine.width, 3), np.uint8)
        self._camera_N5 = np.empty((num_clips * CLIP_FRAMES, 5))

    def hold(self, chord: Chord) -> None:
        """Hold a chord for one chunk.

        Raises:
            LevelEnded: if the level ends meanwhile.
        """
        first = len(self.chords) * CLIP_FRAMES
        for frame in range(first, first + CLIP_FRAMES):
            shot = self.engine.drive(chord)
            self.frames_NHW3[frame] = shot.frame_HW3
            self._camera_N5[frame] = shot.x, shot.y, shot.z, shot.angle_deg, shot.pitch_deg
        self.chords.append(chord)

    def fault(self) -> str | None:
        """The first filter that refuses the chunk recorded last, or None."""
        last = slice((len(self.chords) - 1) * CLIP_FRAMES, len(self.chords) * CLIP_FRAMES)
        return luminance_fault(self.frames_NHW3[last]) or motion_fault(
            self._camera_N5[last, :3], self.chords[-1:], self.engine.limits
        )

    def episode(self, key: str, world: Scenery, meta: dict[str, Any]) -> Episode:
        """The take as an Episode; `meta` is completed with what every take of this engine has in common."""
        intrinsics_N33, c2w_N44 = self.engine.cameras(self._camera_N5)
        short, long = captions(
            light_of(self.frames_NHW3),
            colour_of(self.frames_NHW3),
            world.material,
            place_of(world.sky_at(self._camera_N5[::11, :2])),
            verb_of(self.chords),
        )
        return Episode(
            key=key,
            frames=self.frames_NHW3,
            intrinsics=intrinsics_N33.astype(np.float32),
            c2w=c2w_N44,
            pitch_deg=self._camera_N5[:, 4].astype(np.float32),
            actions=np.stack([chord.vector() for chord in self.chords]),
            caption=short,
            captions_long=long,
            meta=self.engine.about | meta,
        )
