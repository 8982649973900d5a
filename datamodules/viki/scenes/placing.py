"""A description's fractions of places into metres of one kitchen, and where the cameras stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ....registry import UserError, unknown
from ..scene_description import NUM_CAMERAS, NUM_LAYOUTS, NUM_LIGHTS, NUM_STYLES, Pose, SceneDescription, SceneRobot
from .kitchen import DEPTH, DRAWER_OPEN, FIXTURE_OF, STAND_SURFACE, SURFACES, Layout, Placed, Surface, corners, layouts
from .model import COPIES
from .objects import known_objects, object_extent
from .robot_model import Embodiment, embodiments

BODIES = {"stompy": "gr1"}
"""Robots of VIKI-Bench whose meshes no package carries -> the model that stands in their place."""
ALWAYS = ("fridge", "drawer", "drawer box", "oven", "sink", "work", "toaster", "cabinet", "island")
HORIZONTAL_FOV_DEG = 79.0
_LOOK_AT = np.array([0.0, 1.55, 0.72])
_CAMERAS = np.array([[0.0, -1.45, 2.55], [-0.55, -1.35, 2.50], [0.55, -1.35, 2.50], [0.0, -1.55, 2.85]])
_JITTER_M = 0.10
_PLACES_FILE = "datamodules/viki/places.yaml"
_BENCH_END_M = 0.62  # from an arm's root to the far edge of its bench
_ASIDE_M = 0.40
_FLOOR_MARGIN_M = 0.30  # free beyond the rectangle of the layouts


@dataclass(frozen=True)
class Spot:
    """Where a thing stands: the middle of its underside in metres, and its heading, counter-clockwise from x."""

    pos: np.ndarray
    heading_deg: float


@dataclass(frozen=True)
class Arrangement:
    """A scene in metres.

    Attributes:
        robots: (model, copy, spot), in the description's order.
        objects: (name, copy, spot), in the description's order.
        fixtures: name -> place; those not named are hidden.
    """

    robots: tuple[tuple[str, int, Spot], ...]
    objects: tuple[tuple[str, int, Spot], ...]
    fixtures: dict[str, Placed]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: `position` [3] in metres, `rotation` [3, 3] with the columns right, up and back, and the
    vertical field of view.
    """

    position: np.ndarray
    rotation: np.ndarray
    fov_deg: float

    @classmethod
    def looking(cls, position: np.ndarray, target: np.ndarray, fov_deg: float) -> Camera:
        """An upright camera that looks from one point at another."""
        back = (position - target) / np.linalg.norm(position - target)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        return cls(position, np.stack([right, np.cross(back, right), back], 1), fov_deg)

    def project(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """Pixels [N, 2] (x to the right, y down, from the picture's upper left corner) of points [N, 3] in metres; a
        point behind the camera gives NaN.
        """
        right, up, back = ((points - self.position) @ self.rotation).T
        focal = height / 2 / np.tan(np.radians(self.fov_deg) / 2)
        depth = np.where(back < -1e-6, -back, np.nan)
        return np.stack([width / 2 + focal * right / depth, height / 2 - focal * up / depth], 1)


def arrange(description: SceneDescription) -> Arrangement:
    """Positions of everything in a description.

    Raises:
        UserError: for a number without a layout, style, light or camera, a name that is not known, or more than two of
            one kind.
    """
    _check(description)
    layout = layouts()[description.layout]
    robots: list[tuple[str, int, Spot]] = []
    seen: Counter[str] = Counter()
    agents: dict[str, tuple[Spot, Embodiment]] = {}
    for robot in description.robots:
        body, spot = body_of(robot.name), robot_spot(robot, layout)
        robots.append((body, seen[body], spot))
        seen[body] += 1
        if robot.agent:
            agents[robot.agent] = (spot, embodiments()[body])
    objects: list[tuple[str, int, Spot]] = []
    for item in description.objects:
        if item.place in agents:
            spot = _within_reach(item.name, item.pose, *agents[item.place])
        elif item.place == "floor":
            x0, x1, y0, y1 = layout.floor
            spot = _on(Surface((x0, x1), (y0, y1), 0.0), Placed(0, 0, 0), item.name, item.pose)
        elif item.place in SURFACES:
            fixture, surface = SURFACES[item.place]
            spot = _on(surface, fixture_place(fixture, layout), item.name, item.pose)
        else:
            raise UserError(unknown("places", item.place, [*SURFACES, "floor", *agents], _PLACES_FILE))
        objects.append((item.name, seen[item.name], spot))
        seen[item.name] += 1
    for name, count in seen.items():
        if count > COPIES:
            raise UserError(f"a scene can show at most {COPIES} of one kind, and this one has {count} times '{name}'")
    named = {FIXTURE_OF[f] for f in (*description.fixtures, *(o.place for o in description.objects)) if f in FIXTURE_OF}
    fixtures = {name: fixture_place(name, layout) for name in (*ALWAYS, *sorted(named))}
    if not any(item.place == "drawer" for item in description.objects):
        fixtures["drawer box"] = layout.fixtures["drawer"]
    return Arrangement(tuple(robots), tuple(objects), fixtures)


def body_of(robot: str) -> str:
    """The model that shows a robot of robots.yaml."""
    body = BODIES.get(robot, robot)
    if body not in embodiments():
        raise UserError(
            unknown("robots", robot, sorted({*embodiments(), *BODIES} - {"gr1"}), "datamodules/viki/robots.yaml")
        )
    return body


def robot_spot(robot: SceneRobot, layout: Layout) -> Spot:
    """Where a robot of a description stands; at yaw 0 it looks at the global camera."""
    x0, x1, y0, y1 = layout.floor
    if robot.beside:
        return _beside(layout.fixtures[FIXTURE_OF[robot.beside]], (x0 + x1) / 2, (y0 + y1) / 2)
    middle = np.array([x0 + robot.pose.u * (x1 - x0), y0 + robot.pose.v * (y1 - y0), 0.0])
    body = embodiments()[body_of(robot.name)]
    inside = max(0.0, body.radius_m - _FLOOR_MARGIN_M)  # large robots stay further from the fixtures
    middle[:2] = np.clip(middle[:2], (x0 + inside, y0 + inside), (x1 - inside, y1 - inside))
    heading = np.radians(robot.pose.yaw_deg - 90.0)
    ahead = np.array([np.cos(heading), np.sin(heading), 0.0]) * body.ahead_m
    return Spot(middle - ahead, robot.pose.yaw_deg - 90.0)


def _beside(placed: Placed, x: float, y: float) -> Spot:
    """In front of a fixture and a little to the side that is nearer to the room's middle (x, y), looking at it: the
    bench of an arm then touches the fixture.
    """
    angle = np.radians(placed.yaw_deg)
    out, along = np.array([np.sin(angle), -np.cos(angle), 0.0]), np.array([np.cos(angle), np.sin(angle), 0.0])
    front = np.array([placed.x, placed.y, 0.0]) + (DEPTH / 2 + _BENCH_END_M) * out
    side = np.sign(np.dot(np.array([x, y, 0.0]) - front, along)) or 1.0
    return Spot(front + side * _ASIDE_M * along, placed.yaw_deg + 90.0)


def footprint(spot: Spot, body: Embodiment) -> Spot:
    """Middle of the circle that a robot takes up on the floor; its radius is the embodiment's."""
    heading = np.radians(spot.heading_deg)
    return Spot(spot.pos + np.array([np.cos(heading), np.sin(heading), 0.0]) * body.ahead_m, spot.heading_deg)


def fixture_place(name: str, layout: Layout) -> Placed:
    """Where a fixture of a layout stands; the drawer box is pulled out."""
    placed = layout.fixtures[name]
    if name != "drawer box":
        return placed
    angle = np.radians(placed.yaw_deg)
    return Placed(placed.x + np.sin(angle) * DRAWER_OPEN, placed.y - np.cos(angle) * DRAWER_OPEN, placed.yaw_deg)


def global_camera(description: SceneDescription, width: int, height: int) -> Camera:
    """The global camera; its horizontal field of view is the same for every shape of picture."""
    base = _CAMERAS[description.camera]
    along = (_LOOK_AT - base) / np.linalg.norm(_LOOK_AT - base)
    side = np.cross(along, [0, 0, 1])
    jitter = np.clip(np.array(description.camera_jitter), -1, 1) * _JITTER_M
    move = side / np.linalg.norm(side) * jitter[0] + np.array([0, 0, 1]) * jitter[1] + along * jitter[2]
    fov = 2 * np.arctan(np.tan(np.radians(HORIZONTAL_FOV_DEG) / 2) * height / width)
    return Camera.looking(base + move, _LOOK_AT, float(np.degrees(fov)))


def _on(surface: Surface, placed: Placed, name: str, pose: Pose) -> Spot:
    """A spot on a surface at which the whole object lies inside, or in its middle if it is larger."""
    (x0, x1), (y0, y1), (z, _) = corners(surface, placed)
    x, y, _ = object_extent(name) / 2
    c, s = abs(np.cos(np.radians(pose.yaw_deg))), abs(np.sin(np.radians(pose.yaw_deg)))
    half = (c * x + s * y, s * x + c * y)
    at = []
    for low, high, margin, share in ((x0, x1, half[0], pose.u), (y0, y1, half[1], pose.v)):
        room = max(0.0, high - low - 2 * margin)
        at.append((low + high - room) / 2 + share * room)
    return Spot(np.array([*at, z]), pose.yaw_deg)


def _within_reach(name: str, pose: Pose, spot: Spot, robot: Embodiment) -> Spot:
    """A spot on an arm's bench, or on the floor in front of a robot that stands on it."""
    surface = STAND_SURFACE
    if robot is not embodiments()["panda"]:
        surface = Surface((robot.radius_m + 0.12, robot.radius_m + 0.30), (-0.25, 0.25), 0.0)
    x = surface.x[0] + (1 - pose.v) * (surface.x[1] - surface.x[0])
    y = surface.y[1] - (1 - pose.u) * (surface.y[1] - surface.y[0])
    c, s = np.cos(np.radians(spot.heading_deg)), np.sin(np.radians(spot.heading_deg))
    return Spot(spot.pos + np.array([c * x - s * y, s * x + c * y, surface.z]), pose.yaw_deg)


def _check(description: SceneDescription) -> None:
    limits = {"layout": NUM_LAYOUTS, "style": NUM_STYLES, "light": NUM_LIGHTS, "camera": NUM_CAMERAS}
    for name, limit in limits.items():
        value = getattr(description, name)
        if not 0 <= value < limit:
            raise UserError(f"a scene's {name} is one of 0 to {limit - 1}, not {value}")
    for item in description.objects:
        if item.name not in known_objects():
            raise UserError(unknown("objects", item.name, sorted(known_objects()), "datamodules/viki/objects.yaml"))
    for fixture in (*description.fixtures, *(robot.beside for robot in description.robots if robot.beside)):
        if fixture not in FIXTURE_OF and fixture != "floor":
            raise UserError(unknown("places", fixture, [*FIXTURE_OF, "floor"], _PLACES_FILE))
