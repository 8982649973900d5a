"""Units of recording work: small, independent of each other, and each a pure function of its fields.

Episode n of a unit does not depend on how many the unit makes, so a key always names the same frames.

The plan of a recording is a list of units; a unit whose episodes all stand in whole shards is done.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS

_STEP = {"recorded": 1, "synthetic": 3, "counterfactual": len(COUNTERFACTUAL_CHORDS)}
"""Episodes that belong together: the three speeds of a flight, the twelve answers."""
_MOST = {"recorded": 8, "synthetic": 9, "counterfactual": len(COUNTERFACTUAL_CHORDS)}
"""Episodes of the largest unit."""


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
        split: folder that its episodes go to: train, val, test, synthetic or counterfactual.
        kind: "recorded", "synthetic" or "counterfactual".
        game: a game of `doom.GAMES`, or "miniworld".
        map: the map, or MiniWorld's room layout.
        seed: the recording's seed.
        index: the unit's number within its split.
        num_episodes: how many episodes it makes.
        num_clips: clips of 33 frames an episode.
        monsters: whether the monsters are left in.
    """

    split: str
    kind: str
    game: str
    map: str
    seed: int
    index: int
    num_episodes: int
    num_clips: int
    monsters: bool = False

    def key(self, number: int | str) -> str:
        """Key of the unit's episode `number`."""
        number = f"{number:02d}" if isinstance(number, int) else number
        return f"{self.game}-{self.map}-{self.split}-s{self.seed}-{self.index:05d}-{number}"

    def keys(self) -> list[str]:
        """Keys of all its episodes."""
        return [self.key(number) for number in range(self.num_episodes)]

    def generator(self) -> np.random.Generator:
        """A random generator of this unit's own."""
        name = zlib.crc32(f"{self.split}/{self.game}/{self.map}".encode())
        return np.random.default_rng([self.seed, name, self.index, self.num_clips])


def plan_units(
    split: str,
    kind: str,
    places: list[tuple[str, str]],
    num_episodes: int,
    *,
    first: int = 0,
    seed: int,
    num_clips: int,
    monsters: bool = False,
) -> list[Unit]:
    """Units, numbered from `first`, for `num_episodes` episodes (none for fewer than one), dealt in turn to the places.

    Args:
        split: folder that the episodes go to.
        kind: kind of recording.
        places: (game, map) pairs, dealt in an order drawn from the seed.
        num_episodes: how many episodes; the last unit may be smaller than the others.
        first: number of the first unit.
        seed: the recording's seed.
        num_clips: clips an episode.
        monsters: whether the monsters are left in.
    """
    # small sets still see each place; an episode is the same whatever the size of its unit
    size = max(1, num_episodes // (len(places) * _STEP[kind])) * _STEP[kind] if places else 1
    size = min(size, _MOST[kind])
    order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(places))
    units = []
    for number in range(-(-num_episodes // size)):
        game, place = places[order[(first + number) % len(places)]]
        count = min(size, num_episodes - number * size)
        units.append(Unit(split, kind, game, place, seed, first + number, count, num_clips, monsters))
    return units


def episodes_for(num_frames: int, num_clips: int) -> int:
    """Episodes that hold at least `num_frames` frames."""
    return -(-num_frames // (num_clips * CLIP_FRAMES))
