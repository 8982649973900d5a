"""Nothing that the answer needs is hidden: poses are drawn again until the global view shows all of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from ....registry import UserError
from ..scene_description import Pose, SceneDescription, SceneRobot
from .kitchen import layouts
from .objects import object_extent
from .placing import Spot, arrange, body_of, footprint, global_camera, robot_spot
from .renderer import HEIGHT, MIN_PIXELS, WIDTH, SceneRenderer
from .robot_model import Embodiment, embodiments

_ARMS_M = 0.08  # by which two robots' circles may overlap: they are not full
_GAP_M = 0.02  # between two things that stand beside each other
_BODY_M = 0.24  # half the width that a robot hides; its circle on the floor also holds its arms
_TRIES = 100  # draws without a picture before the best of them is looked at


def settle(
    description: SceneDescription, renderer: SceneRenderer, *, min_pixels: int = MIN_PIXELS, attempts: int = 24
) -> tuple[SceneDescription, dict[str, int]]:
    """Give robots and objects other poses in the same places until all that is needed can be seen.

    The given poses stay if they already will do. Nothing else of the scene changes: layout, style, light, camera and
    places are part of what a record says. The same description gives the same answer.

    Args:
        description: the scene.
        renderer: counts what can be seen; of 600x336 pixels or more.
        min_pixels: least number of pixels of the global view at 600x336 for each needed thing.
        attempts: how many settings to look at.

    Returns:
        The scene as it can be drawn, and the pixels of each thing (`Rendering.visible`).

    Raises:
        UserError: if no setting was found; names what stays hidden.
    """
    rng = np.random.default_rng([description.seed, 0x5CE7E])
    current, hidden = description, list(description.needed)
    for attempt in range(attempts):
        if attempt or conflicts(current):
            current = _draw_again(description, rng)
        rendering = renderer.render(current, views=(), size=(WIDTH, HEIGHT))
        hidden = rendering.hidden(current, min_pixels)
        if not hidden:
            return current, dict(rendering.visible)
    raise UserError(
        f"no setting of the scene shows all that its answer needs; under {min_pixels} pixels stay "
        f"{', '.join(_name(description, h) for h in hidden)}\nTake another layout or camera, or fewer robots."
    )


def conflicts(description: SceneDescription) -> int:
    """How many pairs stand in each other or in each other's line of sight, by circles and cylinders: 0 is good."""
    arrangement, camera = arrange(description), global_camera(description, WIDTH, HEIGHT).position
    robots = [(spot, embodiments()[body]) for body, _, spot in arrangement.robots]
    count = 0
    for (one, first), (other, second) in combinations(robots, 2):
        count += _distance(footprint(one, first), footprint(other, second)) < first.radius_m + second.radius_m - _ARMS_M
        count += _hides(camera, one, first.height_m, _BODY_M, _waist(other, second))
        count += _hides(camera, other, second.height_m, _BODY_M, _waist(one, first))
    objects = list(zip(description.objects, (spot for _, _, spot in arrangement.objects), strict=True))
    for (item, one), (other_item, other) in combinations(objects, 2):
        if item.place == other_item.place:
            apart = (max(object_extent(item.name)[:2]) + max(object_extent(other_item.name)[:2])) / 2 + _GAP_M
            count += _distance(one, other) < apart * 0.9
            count += _hides(camera, one, float(object_extent(item.name)[2]), 0.04, other)
            count += _hides(camera, other, float(object_extent(other_item.name)[2]), 0.04, one)
    for item, spot in objects:
        for robot, (place, body) in zip(description.robots, robots, strict=True):
            if item.place == "floor":
                count += _distance(spot, footprint(place, body)) < body.radius_m + max(object_extent(item.name)[:2]) / 2
            if item.place != robot.agent and item.needed:
                count += _hides(camera, place, body.height_m, _BODY_M, spot)
    return count


def _draw_again(description: SceneDescription, rng: np.random.Generator) -> SceneDescription:
    """Other poses, the best of many draws by `conflicts`; robots keep the way they look."""
    best, fewest = description, 10**6
    for _ in range(_TRIES):
        robots = _spread(description, rng)
        objects = tuple(
            replace(item, pose=Pose(float(rng.random()), float(rng.random()), float(rng.uniform(0, 360))))
            for item in description.objects
        )
        drawn = replace(description, robots=robots, objects=objects)
        found = conflicts(drawn)
        if found < fewest:
            best, fewest = drawn, found
        if not fewest:
            break
    return best


def _spread(description: SceneDescription, rng: np.random.Generator) -> tuple[SceneRobot, ...]:
    """Robots on the free floor, one after the other, each at the first of some draws that is clear of those before."""
    layout = layouts()[description.layout]
    placed: list[tuple[Spot, float]] = []
    robots = []
    for robot in description.robots:
        body = embodiments()[body_of(robot.name)]
        for _ in range(30):
            low = body.height_m < 0.9  # what is low goes to the front, where nothing tall hides it
            v = rng.beta(1.0, 1.6) if low else rng.beta(1.6, 1.0)
            moved = replace(robot, pose=Pose(float(rng.random()), float(v), robot.pose.yaw_deg))
            spot = footprint(robot_spot(moved, layout), body)
            clear = (_distance(spot, other) >= body.radius_m + radius - _ARMS_M for other, radius in placed)
            if robot.beside or all(clear):
                break
        placed.append((spot, body.radius_m))
        robots.append(moved)
    return tuple(robots)


def _hides(camera: np.ndarray, thing: Spot, height: float, half_width: float, target: Spot) -> bool:
    """Whether an upright cylinder stands in the way from the camera to a point just above `target`."""
    end = target.pos + np.array([0, 0, 0.05])
    along = end - camera
    flat = along[:2] / float(np.dot(along[:2], along[:2]))
    share = float(np.dot(thing.pos[:2] - camera[:2], flat))
    if not 0 < share < 0.985:
        return False
    passing = camera + share * along
    beside = float(np.hypot(*(passing[:2] - thing.pos[:2])))
    return beside < half_width and passing[2] < thing.pos[2] + height


def _waist(spot: Spot, robot: Embodiment) -> Spot:
    return Spot(spot.pos + np.array([0, 0, robot.height_m / 2]), spot.heading_deg)


def _distance(one: Spot, other: Spot) -> float:
    return float(np.hypot(*(one.pos[:2] - other.pos[:2])))


def _name(description: SceneDescription, key: str) -> str:
    """`object:1` -> `apple`, for people."""
    kind, _, number = key.partition(":")
    if kind == "robot":
        return description.robots[int(number)].name
    return description.objects[int(number)].name if kind == "object" else number
