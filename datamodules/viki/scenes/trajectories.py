"""Two arms at one bench (level L3): what each has to move where, seen by one of them, and both hands' paths.

The five points of an arm come from the simulator: where its hand is, and where inverse kinematics brings it to grasp
the object from above, to lift it, to hold it over the target and to let go; projected into the picture, in pixels
(arXiv 2506.09049, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....registry import UserError
from .kitchen import STAND_HEIGHT, layouts
from .objects import object_extent
from .placing import ALWAYS, Arrangement, Camera, Spot, fixture_place
from .renderer import MIN_PIXELS, SceneRenderer
from .robot_model import embodiments

SIDE = 256
"""Width and height of the picture, as VIKI-Bench has it."""
ARM = "panda"
CARRIED = ("apple", "banana", "bread", "green peas", "meat", "peach", "pear", "scissors", "spoon", "tomato")
TARGETS = ("bowl", "plate", "wooden cutting board")
_IK_TOLERANCE_M = 0.004
_LIFT_M = 0.17
_APART_M = 0.23  # between the middles of two things on the bench
_FOV_DEG = 64.0
_HALF_BENCH = 0.60  # from an arm's root to where the two benches meet
_BORDER = 3  # pixels of the picture's edge that no point may lie in


@dataclass(frozen=True)
class ArmTask:
    """One arm's share: take `carried` (a name of objects.yaml) to `target`; `path` float64 [5, 2] is its hand's way in
    the picture, x and y in pixels: now, at the object, lifted, above the target, at the target.
    """

    carried: str
    target: str
    path: np.ndarray


@dataclass(frozen=True)
class TrajectoryScene:
    """One item of level L3.

    Attributes:
        picture: uint8 [256, 256, 3], RGB, over the shoulder of the arm that is "you".
        own: that arm's task.
        partner: the task of the one across the bench.
        ik_error_m: largest distance by which a hand missed a point that it was sent to.
        layout: of the kitchen behind; style and light likewise.
        style: see there.
        light: see there.
        seed: what the scene was drawn from.
    """

    picture: np.ndarray
    own: ArmTask
    partner: ArmTask
    ik_error_m: float
    layout: int
    style: int
    light: int
    seed: int


def trajectory_scene(
    seed: int, renderer: SceneRenderer, *, layout: int | None = None, style: int | None = None, attempts: int = 60
) -> TrajectoryScene:
    """Draw one scene of two arms from a seed; the same seed gives the same bytes.

    Args:
        seed: of everything that is not given.
        renderer: at least 256x256 pixels.
        layout: 0 to 9, drawn if not given.
        style: 0 to 11, drawn if not given.
        attempts: settings to try until the hands reach all points, no object is hidden and no point leaves the picture.

    Raises:
        UserError: if none of the settings will do.
    """
    rng = np.random.default_rng([seed, 0x13])
    look = tuple(int(n) for n in (rng.integers(10), rng.integers(12), rng.integers(4)))
    look = (look[0] if layout is None else layout, look[1] if style is None else style, look[2])
    carried = [str(name) for name in rng.choice(CARRIED, 2, replace=False)]
    targets = [str(name) for name in rng.choice(TARGETS, 2, replace=False)]
    for _ in range(attempts):
        arrangement, camera = _set_table(rng, look[0], [carried[0], targets[0], carried[1], targets[1]])
        renderer.set_up(arrangement, look[1], look[2])
        for copy in (0, 1):
            _sway(renderer, copy, rng)
        if not _all_seen(renderer, arrangement, camera):
            continue
        picture = renderer.picture(camera, SIDE, SIDE)
        spots = [spot for _, _, spot in arrangement.objects]
        ways = [_way(renderer, copy, spots[2 * copy], spots[2 * copy + 1], carried[copy]) for copy in (0, 1)]
        paths = [camera.project(points, SIDE, SIDE) for points, _ in ways]
        error = max(miss for _, miss in ways)
        inside = all(((path > _BORDER) & (path < SIDE - _BORDER)).all() for path in paths)
        if error < _IK_TOLERANCE_M and inside:
            own, partner = (ArmTask(carried[copy], targets[copy], paths[copy]) for copy in (0, 1))
            return TrajectoryScene(picture, own, partner, error, *look, seed)
    raise UserError(f"no setting of seed {seed} lets both arms reach their objects in the picture\nTake another seed.")


def _set_table(rng: np.random.Generator, layout: int, names: list[str]) -> tuple[Arrangement, Camera]:
    """Two arms face each other across their benches; each has an object and a target on its own half."""
    x0, x1, y0, y1 = layouts()[layout].floor
    middle = np.array([(x0 + x1) / 2 + rng.uniform(-0.2, 0.2), (y0 + y1) / 2 + 0.05, 0.0])
    arms = [Spot(middle + np.array([0, -_HALF_BENCH, 0]), 90.0), Spot(middle + np.array([0, _HALF_BENCH, 0]), -90.0)]
    objects: list[tuple[str, int, Spot]] = []
    for number, name in enumerate(names):
        arm = arms[number // 2]
        ahead = 1.0 if arm.heading_deg > 0 else -1.0
        for _ in range(100):
            at = arm.pos + np.array([rng.uniform(-0.25, 0.25), ahead * rng.uniform(0.30, 0.54), STAND_HEIGHT])
            if all(np.linalg.norm(at - other.pos) > _APART_M for _, _, other in objects):
                break
        objects.append((name, names[:number].count(name), Spot(at, float(rng.uniform(0, 360)))))
    fixtures = {name: fixture_place(name, layouts()[layout]) for name in ALWAYS}
    fixtures["drawer box"] = layouts()[layout].fixtures["drawer"]
    shoulder = np.array([rng.uniform(0.35, 0.65) * rng.choice([-1, 1]), rng.uniform(-0.35, 0.0), STAND_HEIGHT])
    camera = Camera.looking(
        arms[0].pos + shoulder + np.array([0, 0, rng.uniform(0.75, 1.05)]),
        middle + np.array([rng.uniform(-0.12, 0.12), rng.uniform(-0.10, 0.10), STAND_HEIGHT + 0.10]),
        _FOV_DEG,
    )
    return Arrangement(((ARM, 0, arms[0]), (ARM, 1, arms[1])), tuple(objects), fixtures), camera


def _all_seen(renderer: SceneRenderer, arrangement: Arrangement, camera: Camera) -> bool:
    pixels, stage = renderer.pixels(camera, SIDE, SIDE), renderer.stage
    things = [stage.objects[name, copy] for name, copy, _ in arrangement.objects]
    things += [stage.robots[body, copy] for body, copy, _ in arrangement.robots]
    return all(pixels[thing.geoms].sum() >= MIN_PIXELS for thing in things)


def _sway(renderer: SceneRenderer, copy: int, rng: np.random.Generator) -> None:
    """Turn an arm's joints a little away from its usual pose."""
    arm = _Arm(renderer, copy)
    renderer.data.qpos[arm.qpos] += rng.uniform(-0.12, 0.12, len(arm.qpos))
    renderer.data.qpos[arm.qpos[0]] += rng.uniform(-0.5, 0.5)
    renderer.move()


def _way(renderer: SceneRenderer, copy: int, source: Spot, target: Spot, carried: str) -> tuple[np.ndarray, float]:
    """Points [5, 3] of a hand from its pose over the object to the target, and how far it missed the worst of them."""
    arm = _Arm(renderer, copy)
    height = float(object_extent(carried)[2])
    up = np.array([0.0, 0.0, 1.0])
    grasp, place = source.pos + 0.6 * height * up, target.pos + height * up
    begin, points, worst = renderer.data.qpos[arm.qpos].copy(), [arm.hand()[0]], 0.0
    for stop in (grasp, grasp + _LIFT_M * up, place + _LIFT_M * up, place):
        worst = max(worst, arm.reach(stop))
        points.append(arm.hand()[0])
    renderer.data.qpos[arm.qpos] = begin
    renderer.move()
    return np.array(points), worst


class _Arm:
    """One arm's joints and hand in the compiled model."""

    def __init__(self, renderer: SceneRenderer, copy: int) -> None:
        model, prefix = renderer.stage.model, f"robot/{ARM}/{copy}/"
        mount = embodiments()[ARM].grip
        assert mount is not None  # embodiments.yaml gives it
        self.renderer, self.offset = renderer, np.array(mount.pos)
        self.body = model.body(prefix + mount.body).id
        joints = [model.joint(f"{prefix}joint{n}") for n in range(1, 8)]
        self.qpos = np.array([joint.qposadr[0] for joint in joints])
        self.dofs = np.array([joint.dofadr[0] for joint in joints])
        self.limits = np.array([joint.range for joint in joints])

    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] of the point between the fingers and the direction [3] in which they point."""
        data = self.renderer.data
        turn = data.xmat[self.body].reshape(3, 3)
        return data.xpos[self.body] + turn @ self.offset, turn[:, 2].copy()

    def reach(self, target: np.ndarray, num_steps: int = 120) -> float:
        """Move the joints until the hand is at `target` [3], fingers down: damped least squares; returns the distance
        that is left, in metres.
        """
        import mujoco

        data, model = self.renderer.data, self.renderer.stage.model
        jacobian: Any = np.zeros((6, model.nv))
        for _ in range(num_steps):
            point, fingers = self.hand()
            miss = np.concatenate([target - point, 0.3 * np.cross(fingers, [0.0, 0.0, -1.0])])
            if np.linalg.norm(miss) < 1e-4:
                break
            mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], point, self.body)
            part = jacobian[:, self.dofs] * np.array([1, 1, 1, 0.3, 0.3, 0.3])[:, None]
            step = part.T @ np.linalg.solve(part @ part.T + 1e-3 * np.eye(6), miss)
            step *= min(1.0, 0.25 / float(np.abs(step).max() + 1e-12))
            data.qpos[self.qpos] = np.clip(data.qpos[self.qpos] + step, self.limits[:, 0], self.limits[:, 1])
            self.renderer.move()
        return float(np.linalg.norm(target - self.hand()[0]))
