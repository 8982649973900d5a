"""A robot's looks as the scenes need them: a tree of joints, coloured triangle meshes, a camera and a hand.

The files are made once from the robots' own packages (`robot_files.py`) and lie in the cache. Everything of physics
(masses, collision shapes, motors) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SCHEMA_VERSION = 1
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Joint:
    """One degree of freedom between a body and its parent.

    Attributes:
        name: as in the robot's own file.
        kind: `hinge` (radians) or `slide` (metres).
        axis: three numbers, in the body's frame.
        range: lower and upper limit.
    """

    name: str
    kind: str
    axis: Vector
    range: tuple[float, float]


@dataclass(frozen=True)
class Body:
    """A rigid part. `pos` (metres) and `quat` (w, x, y, z) lie in the parent's frame; `parent` is -1 for the root."""

    name: str
    parent: int
    pos: Vector
    quat: Vector
    joint: Joint | None


@dataclass(frozen=True)
class Part:
    """Triangles of one colour on one body: vertices float32 [V, 3] in the body's frame, faces int32 [F, 3]."""

    body: int
    rgba: Vector
    vertices: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class RobotModel:
    """A robot's bodies, parents before children, and what is drawn on them."""

    bodies: tuple[Body, ...]
    parts: tuple[Part, ...]

    @property
    def num_faces(self) -> int:
        """Triangles in all."""
        return sum(len(part.faces) for part in self.parts)

    def save(self, path: Path) -> None:
        """Write as .npz: a JSON header and two arrays a part."""
        header = {
            "schema_version": SCHEMA_VERSION,
            "bodies": [asdict(body) for body in self.bodies],
            "parts": [{"body": part.body, "rgba": part.rgba} for part in self.parts],
        }
        arrays = {f"vertices{i}": part.vertices for i, part in enumerate(self.parts)}
        arrays |= {f"faces{i}": part.faces for i, part in enumerate(self.parts)}
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez_compressed(path, header=text, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> RobotModel:
        """Read what `save` wrote.

        Raises:
            ValueError: if it has another schema_version.
        """
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header.get("schema_version") != SCHEMA_VERSION:
                raise ValueError(f"{path}: robot of another version of fulgurite")
            parts = tuple(
                Part(part["body"], tuple(part["rgba"]), file[f"vertices{i}"], file[f"faces{i}"])
                for i, part in enumerate(header["parts"])
            )
        return cls(tuple(_body(fields) for fields in header["bodies"]), parts)


@dataclass(frozen=True)
class Mount:
    """A frame on a body: `pos` in metres in that body's frame; a camera looks along the robot's forward axis, turned
    down by `pitch_deg`.
    """

    body: str
    pos: Vector
    pitch_deg: float = 0.0


@dataclass(frozen=True)
class Embodiment:
    """How the scenes use one robot's file, which looks along its x axis.

    Attributes:
        source: name in the catalogue of sources.
        file: robot file below the source's folder, before conversion.
        root: body of that file at which the robot begins.
        num_faces: triangles to keep.
        radius_m: of the circle on the floor that the robot takes up.
        ahead_m: how far that circle's middle lies ahead of the robot's origin.
        height_m: about how tall it stands, for what it hides.
        camera: where its own view is taken.
        grip: the point between an arm's fingers.
        pose: joint name to position (degrees or metres) at which it stands; the others are at 0.
        paint: colours that replace the file's own: body name, or `*` for all others, to r, g, b.
        gripper: further robot file (`file`, `root`) that is put on a body of this one (`onto`).
    """

    source: str
    file: str
    root: str
    num_faces: int
    radius_m: float
    height_m: float
    camera: Mount
    grip: Mount | None = None
    pose: Mapping[str, float] | None = None
    paint: Mapping[str, Vector] | None = None
    gripper: Mapping[str, str] | None = None
    ahead_m: float = 0.0


@cache
def embodiments() -> dict[str, Embodiment]:
    """The robots' models by the name that robots.yaml gives as `body`, from `embodiments.yaml`."""
    text = (Path(__file__).parent / "embodiments.yaml").read_text(encoding="utf-8")
    return {name: _embodiment(fields) for name, fields in yaml.safe_load(text).items()}


def _embodiment(fields: dict[str, Any]) -> Embodiment:
    camera, grip = Mount(**fields.pop("camera")), fields.pop("grip", None)
    return Embodiment(camera=camera, grip=Mount(**grip) if grip else None, **fields)


def _body(fields: dict[str, Any]) -> Body:
    joint = fields["joint"]
    if joint is not None:
        joint = Joint(joint["name"], joint["kind"], tuple(joint["axis"]), tuple(joint["range"]))
    return Body(fields["name"], fields["parent"], tuple(fields["pos"]), tuple(fields["quat"]), joint)
