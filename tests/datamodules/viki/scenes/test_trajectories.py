"""Two arms' points: from the simulator, on the objects, inside the picture, and the same from the same seed."""

import numpy as np
import pytest

from fulgurite.datamodules.viki.scenes import trajectories
from fulgurite.datamodules.viki.scenes.placing import Camera, arrange
from fulgurite.datamodules.viki.scenes.trajectories import SIDE, trajectory_scene


def test_the_same_seed_gives_the_same_bytes_and_others_differ(renderer):
    one, again, other = (trajectory_scene(seed, renderer) for seed in (5, 5, 6))
    assert one.picture.tobytes() == again.picture.tobytes() != other.picture.tobytes()
    assert (one.own.path == again.own.path).all() and (one.partner.path == again.partner.path).all()
    assert one.picture.shape == (SIDE, SIDE, 3) and one.ik_error_m < 0.004


@pytest.mark.parametrize("seed", range(4))
def test_points_lie_inside_the_picture_and_on_the_objects(renderer, seed, monkeypatch):
    tables = []
    lay = trajectories._set_table
    monkeypatch.setattr(trajectories, "_set_table", lambda *given: tables.append(lay(*given)) or tables[-1])
    scene = trajectory_scene(seed, renderer)
    arrangement, camera = tables[-1]
    spots = [spot.pos for _, _, spot in arrangement.objects]
    for number, task in enumerate((scene.own, scene.partner)):
        assert task.path.shape == (5, 2) and (task.path > 0).all() and (task.path < SIDE).all()
        source, target = camera.project(np.array(spots[2 * number : 2 * number + 2]), SIDE, SIDE)
        assert np.linalg.norm(task.path[1] - source) < 25 and np.linalg.norm(task.path[4] - target) < 35
        assert task.path[2][1] < task.path[1][1] and task.path[3][1] < task.path[4][1], (
            "lifted is higher in the picture"
        )
        assert np.linalg.norm(task.path[4] - source) > np.linalg.norm(task.path[4] - target)


def test_an_arm_reaches_what_is_near_and_tells_how_far_it_missed_the_rest(renderer, scene):
    arrangement, _ = trajectories._set_table(np.random.default_rng(0), 0, ["apple", "plate", "pear", "bowl"])
    renderer.set_up(arrangement, 0, 0)
    arm, base = trajectories._Arm(renderer, 0), arrangement.robots[0][2].pos
    near = base + np.array([0.15, 0.45, 0.70])
    assert arm.reach(near) < 1e-3
    point, fingers = arm.hand()
    assert np.linalg.norm(point - near) < 1e-3 and fingers[2] < -0.99, "the fingers point down"
    joints = renderer.data.qpos[arm.qpos]
    assert (joints >= arm.limits[:, 0] - 1e-9).all() and (joints <= arm.limits[:, 1] + 1e-9).all()
    assert arm.reach(base + np.array([0.0, 2.0, 0.7])) > 0.5
    renderer.show(scene)
    assert (renderer.data.qpos == renderer.stage.qpos).all(), "another scene finds the arms as they were"
    assert len(arrange(scene).robots) == 2


def test_a_camera_projects_as_a_pinhole():
    camera = Camera.looking(np.array([0.0, -2.0, 1.0]), np.array([0.0, 0.0, 1.0]), 90.0)
    points = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, -3.0, 1.0]])
    assert np.allclose(camera.project(points, 400, 200)[:3], [[200, 100], [250, 100], [200, 50]])
    assert np.isnan(camera.project(points, 400, 200)[3]).all()
