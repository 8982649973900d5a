"""One take: chords held in a running Doom, collected into an Episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from .actions import CLIP_FRAMES, Chord
from .camera import ShearPitchCamera, doom_c2w
from .captions import captions, colour_of, light_of, place_of, verb_of
from .doom import DoomEngine
from .doom_map import DoomMap
from .episode import Episode
from .filters import luminance_fault, motion_fault


class Take:
    """Frames and cameras of consecutive chunks of 33 tics.

    Args:
        engine: where the camera stands ready.
        num_clips: how many chunks there will be.
    """

    def __init__(self, engine: DoomEngine, num_clips: int) -> None:
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

    def episode(self, key: str, world: DoomMap, meta: dict[str, Any]) -> Episode:
        """The take as an Episode; `meta` is completed with what every take of this engine has in common."""
        x_N, y_N, z_N, angle_N, pitch_N = self._camera_N5.T
        camera = ShearPitchCamera(self.engine.height, self.engine.width)
        sector_P = world.sector_at(self._camera_N5[::11, :2])
        short, long = captions(
            light_of(self.frames_NHW3),
            colour_of(self.frames_NHW3),
            world.material,
            place_of(world.sky_S[sector_P[sector_P >= 0]]),
            verb_of(self.chords),
        )
        return Episode(
            key=key,
            frames=self.frames_NHW3,
            intrinsics=camera.intrinsics(pitch_N).astype(np.float32),
            c2w=doom_c2w(x_N, y_N, z_N, angle_N, self.engine.limits.unit_scale),
            pitch_deg=pitch_N.astype(np.float32),
            actions=np.stack([chord.vector() for chord in self.chords]),
            caption=short,
            captions_long=long,
            meta={"game": self.engine.game, "engine": "vizdoom", "camera": "shear", "pose_source": "engine"} | meta,
        )
