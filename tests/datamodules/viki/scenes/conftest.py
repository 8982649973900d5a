"""A renderer whose robots are blocks on the real arm's joints: nothing is fetched, and the code is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fulgurite.datamodules.viki.scene_description import Pose, SceneDescription, SceneObject, SceneRobot
from fulgurite.datamodules.viki.scenes.opengl import find_platform
from fulgurite.datamodules.viki.scenes.robot_model import Body, Joint, Part, RobotModel, embodiments
from fulgurite.datamodules.viki.scenes.solids import box

_STRAIGHT = (1.0, 0.0, 0.0, 0.0)
_UP, _DOWN = (0.70710678, 0.70710678, 0.0, 0.0), (0.70710678, -0.70710678, 0.0, 0.0)
# Franka's published link frames: parent to joint
_ARM = [
    ((0, 0, 0.333), _STRAIGHT, (-2.9, 2.9)),
    ((0, 0, 0), _DOWN, (-1.76, 1.76)),
    ((0, -0.316, 0), _UP, (-2.9, 2.9)),
    ((0.0825, 0, 0), _UP, (-3.07, -0.07)),
    ((-0.0825, 0.384, 0), _DOWN, (-2.9, 2.9)),
    ((0, 0, 0), _UP, (-0.02, 3.75)),
    ((0.088, 0, 0), _UP, (-2.9, 2.9)),
]


def _block(name: str) -> RobotModel:
    robot = embodiments()[name]
    bodies = [Body(robot.root, -1, (0.0, 0.0, 0.0), _STRAIGHT, None)]
    size = (0.3, 0.4, robot.height_m)
    shape = box(*size)
    lift = 0.0 if name == "panda" else robot.height_m / 2
    parts = [Part(0, (0.8, 0.2, 0.2, 1.0), shape.vertices + np.array([0, 0, lift]), shape.faces)]
    if name == "panda":
        thin = box(0.08, 0.08, 0.12)
        parts = []
        for number, (pos, quat, limits) in enumerate(_ARM, 1):
            joint = Joint(f"joint{number}", "hinge", (0.0, 0.0, 1.0), limits)
            bodies.append(Body(f"link{number}", number - 1, pos, quat, joint))
            parts.append(Part(number, (0.9, 0.9, 0.9, 1.0), thin.vertices, thin.faces))
        return RobotModel(tuple(bodies), tuple(parts))
    for joint_name in robot.pose or {}:
        joint = Joint(joint_name, "hinge", (0.0, 0.0, 1.0), (-3.0, 3.0))
        bodies.append(Body(f"of {joint_name}", 0, (0.0, 0.0, 0.0), _STRAIGHT, joint))
    held = {body.name for body in bodies}
    for mount in (robot.camera, robot.grip):
        if mount and mount.body not in held:
            bodies.append(Body(mount.body, 0, (0.2, 0.0, robot.height_m), _STRAIGHT, None))
            held.add(mount.body)
    return RobotModel(tuple(bodies), tuple(parts))


@pytest.fixture(scope="session")
def make_renderer() -> Iterator[Callable[..., Any]]:
    """Makes a `SceneRenderer` with robots of blocks; all are closed at the end."""
    pytest.importorskip("mujoco", reason="needs pip install 'fulgurite[viki]'")
    if find_platform() is None:
        pytest.skip("needs OpenGL without a display")
    from fulgurite.datamodules.viki.scenes import renderer

    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "load_robots", lambda: {name: _block(name) for name in embodiments()})

        def make(*size: int) -> renderer.SceneRenderer:
            made.append(renderer.SceneRenderer(*size))
            return made[-1]

        yield make
    for item in made:
        item.close()


@pytest.fixture(scope="session")
def renderer(make_renderer: Callable[..., Any]) -> Any:
    """One renderer of 600x336 for all tests: scenes must not leave anything behind in it."""
    return make_renderer()


@pytest.fixture
def scene() -> SceneDescription:
    """An apple on the worktop, a plate on the table, a pear in the cabinet; H1 acts, Go2 stands in front."""
    return SceneDescription(
        layout=0,
        style=1,
        light=0,
        camera=0,
        camera_jitter=(0.0, 0.0, 0.0),
        robots=(
            SceneRobot("unitree_h1", "R1", Pose(0.05, 0.8, 160.0)),
            SceneRobot("unitree_go2", "", Pose(0.5, 0.1, 60.0)),
        ),
        objects=(
            SceneObject("apple", "kitchen work area", Pose(0.9, 0.3)),
            SceneObject("plate", "table", Pose(0.5, 0.5)),
            SceneObject("pear", "cabinet", Pose(0.9, 0.5)),
        ),
        fixtures=("table", "cabinet", "kitchen work area"),
        cabinet=("pear",),
        seed=3,
    )


@pytest.fixture
def moved() -> Callable[[SceneDescription, int, Pose], SceneDescription]:
    """The scene with another pose of one of its robots."""

    def move(scene: SceneDescription, number: int, pose: Pose) -> SceneDescription:
        robots = [replace(r, pose=pose) if i == number else r for i, r in enumerate(scene.robots)]
        return replace(scene, robots=tuple(robots))

    return move
