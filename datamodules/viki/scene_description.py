"""What a picture of a record shows, without any geometry of a kitchen: the contract of generator and renderer.

The generator decides what stands in which place and where in it; the renderer knows how large a place is. So positions
are fractions of a place's usable rectangle, and one description fits every layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1
NUM_LAYOUTS, NUM_STYLES, NUM_LIGHTS, NUM_CAMERAS = 10, 12, 4, 4
GLOBAL_VIEW = "global"


@dataclass(frozen=True)
class Pose:
    """Where something stands in its place.

    Attributes:
        u: 0 to 1, left to right as the global camera sees the place.
        v: 0 to 1, from the edge next to the global camera to the far one.
        yaw_deg: turn about the vertical, counter-clockwise from above; 0 looks at the global camera.
    """

    u: float
    v: float
    yaw_deg: float = 0.0


@dataclass(frozen=True)
class SceneRobot:
    """A robot in the picture.

    Attributes:
        name: type of robot, as in robots.yaml: `unitree_h1`.
        agent: `R1` to `R3` for a robot that acts, empty for one that only stands there.
        pose: on the floor: the free rectangle in front of the counters.
        beside: name of the fixture that it stands beside (a fixed arm at the sink), which then decides the position;
            empty for one that stands anywhere.
    """

    name: str
    agent: str
    pose: Pose
    beside: str = ""


@dataclass(frozen=True)
class SceneObject:
    """An object in the picture.

    Attributes:
        name: as in objects.yaml: `apple`.
        place: a place of places.yaml, or `R1` to `R3` for one that lies within reach of that robot.
        pose: in that place.
        needed: the answer depends on it, so the global camera has to see it.
    """

    name: str
    place: str
    pose: Pose
    needed: bool = True


@dataclass(frozen=True)
class SceneDescription:
    """One scene: everything that its pictures depend on.

    Attributes:
        layout: 0 to 9: how the kitchen's fixtures stand.
        style: 0 to 11: materials and colours.
        light: 0 to 3: lamps and their strength.
        camera: 0 to 3: where the global camera stands; `camera_jitter` moves it a little.
        camera_jitter: three numbers, -1 to 1: sideways, up, and along its line of sight.
        robots: active ones first, in the order of their agents' names.
        objects: in the order of the record.
        fixtures: names in places.yaml that have to be seen (`table`, `cabinet`, `sink`, ...); others may be left out.
        cabinet: names of the objects inside the cabinet, which the picture has to show: its doors are of glass, whether
            it holds something or not. The same objects also stand in `objects` with the place `cabinet`.
        seed: of whatever else the renderer draws.
    """

    layout: int
    style: int
    light: int
    camera: int
    camera_jitter: tuple[float, float, float]
    robots: tuple[SceneRobot, ...]
    objects: tuple[SceneObject, ...]
    fixtures: tuple[str, ...]
    cabinet: tuple[str, ...]
    seed: int

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the pictures: the global one, then one for each active robot (`R1`, `R2`, ...)."""
        return (GLOBAL_VIEW, *(robot.agent for robot in self.robots if robot.agent))

    @property
    def needed(self) -> tuple[str, ...]:
        """What the global view must show: `robot:NUMBER`, `object:NUMBER`, positions in the lists above."""
        robots = [f"robot:{i}" for i in range(len(self.robots))]
        return (*robots, *(f"object:{i}" for i, item in enumerate(self.objects) if item.needed))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, for JSON."""
        return {"schema_version": SCHEMA_VERSION, **_plain(asdict(self))}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SceneDescription:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if the version is another, or a field is missing or unknown.
        """
        values = dict(fields)
        version = values.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"scene of schema_version {version}; this program reads {SCHEMA_VERSION}")
        try:
            values["robots"] = tuple(SceneRobot(**{**r, "pose": Pose(**r["pose"])}) for r in values["robots"])
            values["objects"] = tuple(SceneObject(**{**o, "pose": Pose(**o["pose"])}) for o in values["objects"])
            values["camera_jitter"] = tuple(values["camera_jitter"])
            values["fixtures"], values["cabinet"] = tuple(values["fixtures"]), tuple(values["cabinet"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"scene with a missing or unknown field: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
