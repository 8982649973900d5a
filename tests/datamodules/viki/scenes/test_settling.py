"""Poses are drawn again until everything needed can be seen, and nothing else of a scene changes."""

from dataclasses import replace

import pytest

from fulgurite.datamodules.viki.scene_description import Pose, SceneDescription, SceneObject, SceneRobot
from fulgurite.datamodules.viki.scenes.settling import conflicts, settle
from fulgurite.registry import UserError


def crowded(seed: int) -> SceneDescription:
    """Five robots on one spot and three objects on another."""
    names = ("unitree_h1", "fetch", "panda", "anymal_c", "unitree_go2")
    agents = ("R1", "R2", "", "", "")
    robots = tuple(SceneRobot(n, a, Pose(0.5, 0.5, 20.0)) for n, a in zip(names, agents, strict=True))
    places = (("apple", "kitchen work area"), ("banana", "kitchen work area"), ("cup", "kitchen island area"))
    objects = tuple(SceneObject(name, place, Pose(0.5, 0.5)) for name, place in places)
    return SceneDescription(seed % 10, seed % 12, seed % 4, seed % 4, (0.2, -0.3, 0.1), robots, objects, (), (), seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_is_spread_until_all_can_be_seen(renderer, seed):
    scene, visible = settle(crowded(seed), renderer)
    assert min(visible[name] for name in scene.needed) >= 40
    assert renderer.render(scene, views=()).visible == visible
    same_places = [(o.name, o.place) for o in scene.objects] == [(o.name, o.place) for o in crowded(seed).objects]
    assert same_places and [r.name for r in scene.robots] == [r.name for r in crowded(seed).robots]
    given = crowded(seed)
    assert replace(scene, robots=given.robots, objects=given.objects) == given
    assert conflicts(scene) < conflicts(given)


def test_settling_is_a_function_of_the_scene(renderer):
    assert settle(crowded(7), renderer) == settle(crowded(7), renderer)


def test_poses_that_will_do_stay(renderer, scene):
    assert settle(scene, renderer)[0] == scene


def test_what_stays_hidden_is_named(renderer, scene):
    with pytest.raises(UserError, match=r"under 40000 pixels stay (.*)apple(.|\n)*Take another layout"):
        settle(scene, renderer, min_pixels=40_000, attempts=2)


def test_an_arm_beside_a_fixture_stays_there(renderer):
    robots = (SceneRobot("panda", "R1", Pose(0, 0), "sink"), SceneRobot("unitree_go2", "R2", Pose(0.1, 0.1)))
    scene = replace(
        crowded(0), robots=robots, objects=(SceneObject("apple", "R1", Pose(0.5, 0.5)),), fixtures=("sink",)
    )
    moved = replace(scene, robots=(replace(robots[0], pose=Pose(0.9, 0.9, 50.0)), robots[1]))
    one, other = (renderer.show(s).robots[0][2] for s in (scene, moved))
    assert (one.pos == other.pos).all() and one.heading_deg == other.heading_deg == 90.0
    assert settle(scene, renderer)[1]["object:0"] >= 40
