"""Scenes into pictures: the same bytes, nothing compiled anew, and counts that agree with what the picture shows."""

from dataclasses import replace

import numpy as np
import pytest

from fulgurite.datamodules.viki.scene_description import Pose, SceneObject, SceneRobot
from fulgurite.datamodules.viki.scenes.model import HIDDEN
from fulgurite.datamodules.viki.scenes.placing import arrange, global_camera
from fulgurite.registry import UserError


def test_the_same_scene_gives_the_same_bytes_in_another_renderer_and_after_other_scenes(make_renderer, renderer, scene):
    other = replace(scene, layout=5, style=7, light=2, camera=2, objects=())
    first = renderer.render(scene)
    renderer.render(other)
    again = renderer.render(scene)
    elsewhere = make_renderer(800, 450).render(scene, size=(600, 336))
    for view in scene.views:
        assert first.views[view].shape == (336, 600, 3) and first.views[view].dtype == np.uint8
        assert first.views[view].tobytes() == again.views[view].tobytes() == elsewhere.views[view].tobytes()
    assert first.visible == again.visible == elsewhere.visible


def test_a_robot_moves_without_anything_compiled_anew(renderer, scene, moved):
    model, faces = renderer.stage.model, renderer.stage.model.mesh_face.copy()
    before = renderer.render(scene).views["global"]
    turned = renderer.render(moved(scene, 1, Pose(0.8, 0.4, 10.0))).views["global"]
    back = renderer.render(scene).views["global"]
    assert renderer.stage.model is model and (model.mesh_face == faces).all()
    assert (before != turned).any(axis=-1).sum() > 500 and before.tobytes() == back.tobytes()


@pytest.mark.parametrize("place", ["kitchen work area", "table", "cabinet", "sink", "drawer", "floor", "rack"])
def test_counted_pixels_are_those_that_change_with_the_thing_and_lie_where_it_is_projected(renderer, scene, place):
    scene = replace(scene, robots=(), fixtures=("table", "rack"), cabinet=())
    shown = replace(scene, objects=(SceneObject("tomato", place, Pose(0.7, 0.5)),))
    drawn = renderer.render(shown)
    count, with_it = drawn.visible["object:0"], drawn.views["global"].astype(int)
    renderer.stage.model.geom_group[renderer.stage.objects["tomato", 0].geoms] = HIDDEN
    camera = global_camera(shown, 600, 336)
    without = renderer.picture(camera, 600, 336).astype(int)
    rows, columns = np.nonzero(np.abs(with_it - without).sum(-1) > 12)
    assert count >= 40 and 0.6 * count <= len(rows) <= 1.7 * count  # edges blend, glass dims
    middle = arrange(shown).objects[0][2].pos + np.array([0, 0, 0.045])
    assert np.abs(camera.project(middle[None], 600, 336)[0] - [columns.mean(), rows.mean()]).max() < 4


def test_what_lies_in_the_cabinet_is_seen_through_its_glass(renderer, scene):
    holding = renderer.render(scene).views["global"].astype(int)
    empty = renderer.render(replace(scene, objects=scene.objects[:2], cabinet=())).views["global"].astype(int)
    assert (np.abs(holding - empty).sum(-1) > 60).sum() >= 40


def test_a_robot_before_an_object_hides_it(renderer, scene):
    seen = renderer.render(scene, views=())
    apple = arrange(scene).objects[0][2].pos
    camera = global_camera(scene, 600, 336).position
    x0, x1, y0, y1 = -1.2, 1.1, 0.45, 1.95  # the floor of layout 0
    at = camera + (apple - camera) * (1.85 - camera[1]) / (apple[1] - camera[1])
    before = Pose((at[0] - x0) / (x1 - x0), (at[1] - y0) / (y1 - y0), 0.0)
    hidden = renderer.render(replace(scene, robots=(replace(scene.robots[0], pose=before),)), views=())
    assert seen.hidden(scene) == [] and seen.visible["object:0"] >= 40
    assert hidden.visible["object:0"] < 40 and "object:0" in hidden.hidden(scene)


def test_every_layout_style_light_and_camera_differs(renderer, scene):
    fields = {"layout": 10, "style": 12, "light": 4, "camera": 4}
    for field, number in fields.items():
        scenes = [replace(scene, robots=(), **{field: k}) for k in range(number)]
        pictures = [renderer.render(s, views=("global",), visibility=False).views["global"] for s in scenes]
        assert len({picture.tobytes() for picture in pictures}) == number, field


def test_an_own_view_is_drawn_for_each_active_robot_alone(renderer, scene):
    assert scene.views == ("global", "R1")
    drawn = renderer.render(scene, size=(224, 224))
    assert {view: picture.shape for view, picture in drawn.views.items()} == dict.fromkeys(scene.views, (224, 224, 3))
    assert (drawn.views["R1"] != drawn.views["global"]).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layout": 10}, "layout is one of 0 to 9, not 10"),
        ({"objects": (SceneObject("appel", "table", Pose(0, 0)),)}, "Did you mean 'apple'"),
        ({"objects": (SceneObject("apple", "racc", Pose(0, 0)),)}, "Did you mean 'rack'"),
        ({"robots": (SceneRobot("stomp", "R1", Pose(0, 0)),)}, "Did you mean 'stompy'"),
        ({"fixtures": ("sinc",)}, "Did you mean 'sink'"),
        ({"objects": tuple(SceneObject("apple", "table", Pose(0, 0)) for _ in range(3))}, "3 times 'apple'"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(renderer, scene, change, sentence):
    with pytest.raises(UserError, match=sentence):
        renderer.render(replace(scene, **change))


def test_a_view_that_is_not_there_and_a_size_that_is_too_large_are_refused(renderer, scene):
    with pytest.raises(UserError, match="no view 'R2'\nit has: global R1"):
        renderer.render(scene, views=["R2"])
    with pytest.raises(UserError, match="up to 600x336 pixels, not 640x480"):
        renderer.render(scene, size=(640, 480))
