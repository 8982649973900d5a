"""Robots' own files become light ones: where every vertex stood it stands, thinner; and what is said without them."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from fulgurite.datamodules.sources import download
from fulgurite.datamodules.sources.catalogue import SOURCES
from fulgurite.datamodules.sources.download import fetch, is_cached
from fulgurite.datamodules.viki.scenes.model import load_robots, robot_sources
from fulgurite.datamodules.viki.scenes.robot_model import Body, Mount, Part, RobotModel, embodiments
from fulgurite.datamodules.viki.scenes.solids import ball
from fulgurite.launch.doctor import missing_package
from fulgurite.registry import UserError

MJCF = """<mujoco><compiler angle="radian"/><asset>
<mesh name="ball" vertex="{vertices}" face="{faces}"/><material name="blue" rgba="0 0 1 1"/></asset>
<worldbody><body name="root" pos="5 5 5"><freejoint/>
<geom type="box" size=".1 .1 .1" group="0"/>
<body name="arm" pos="0 0 1" quat=".7071068 0 0 .7071068"><joint name="turn" axis="0 1 0" range="-1 2"/>
<geom type="mesh" mesh="ball" group="1" rgba="1 0 0 1" contype="0" conaffinity="0"/>
<body name="mount" pos=".3 0 0" quat=".7071068 .7071068 0 0"><body name="tip" pos="0 .2 0">
<geom type="box" size=".1 .2 .3" pos="0 0 .4" group="1" material="blue" mass="1"/></body></body></body></body>
<body name="other"><geom type="box" size="1 1 1" group="1"/></body></worldbody></mujoco>"""


@pytest.fixture
def unpacked(tmp_path):
    """A folder as an unpacked package leaves it: one small robot, a licence."""
    mesh = ball(0.4, 0.4, 0.4, 80)
    numbers = [" ".join(f"{x:.6f}" for x in mesh.vertices.ravel()), " ".join(str(i) for i in mesh.faces.ravel())]
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "toy.xml").write_text(MJCF.format(vertices=numbers[0], faces=numbers[1]), encoding="utf-8")
    (tmp_path / "LICENSE").write_text("Do as you like.", encoding="utf-8")
    return tmp_path


@pytest.fixture
def toy(monkeypatch):
    """The one robot that the scenes know of."""
    for package in ("mujoco", "fast_simplification", "collada"):
        pytest.importorskip(package, reason="needs pip install 'fulgurite[viki]'")
    camera = Mount("tip", (0.0, 0.0, 0.0))
    robot = replace(embodiments()["unitree_h1"], file="robots/toy.xml", root="root", camera=camera, num_faces=600)
    monkeypatch.setattr("fulgurite.datamodules.viki.scenes.robot_files.embodiments", lambda: {"toy": robot})
    return robot


def test_a_package_becomes_one_light_file_beside_its_licence(unpacked, toy):
    from fulgurite.datamodules.viki.scenes.robot_files import LICENCES, convert

    convert(unpacked)
    assert sorted(f.name for f in unpacked.iterdir()) == [LICENCES, "toy.npz"]
    assert "Do as you like." in (unpacked / LICENCES).read_text(encoding="utf-8")
    model = RobotModel.load(unpacked / "toy.npz")
    assert [(b.name, b.parent) for b in model.bodies] == [("root", -1), ("arm", 0), ("tip", 1)]
    assert model.bodies[0].joint is None and model.bodies[0].pos == (0, 0, 0), "the robot's own place is dropped"
    joint = model.bodies[1].joint
    assert joint is not None and (joint.name, joint.kind) == ("turn", "hinge") and joint.range == pytest.approx((-1, 2))
    red, blue = model.parts
    assert (red.body, red.rgba[:3], blue.body, blue.rgba[:3]) == (1, (1, 0, 0), 2, (0, 0, 1))
    assert 100 < len(red.faces) < 1300, "3,040 triangles before"
    assert np.allclose(red.vertices.max(0), 0.2, atol=0.01) and np.allclose(red.vertices.min(0), -0.2, atol=0.01)
    # mount turns y up: the tip stands 0.3 along x and 0.2 above the arm
    assert np.allclose(model.bodies[2].pos, (0.3, 0.0, 0.2), atol=1e-6)
    assert np.allclose(blue.vertices.max(0), (0.1, 0.2, 0.7), atol=1e-6)


def test_a_written_robot_is_read_back_and_another_version_refused(tmp_path, monkeypatch):
    part = Part(0, (1.0, 0.0, 0.0, 1.0), np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
    model = RobotModel((Body("root", -1, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), None),), (part,))
    model.save(tmp_path / "one.npz")
    read = RobotModel.load(tmp_path / "one.npz")
    assert read.bodies == model.bodies and (read.parts[0].vertices == part.vertices).all() and read.num_faces == 1
    monkeypatch.setattr("fulgurite.datamodules.viki.scenes.robot_model.SCHEMA_VERSION", 2)
    with pytest.raises(ValueError, match="another version"):
        RobotModel.load(tmp_path / "one.npz")


def test_without_meshes_and_network_the_wheel_to_copy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path))
    monkeypatch.setenv("FULGURITE_OFFLINE", "1")
    with pytest.raises(UserError, match=r"\.whl"):
        load_robots()


def test_a_missing_package_of_the_extra_is_told_before_anything_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "collada", None)
    monkeypatch.setattr(download, "_download", lambda *given: pytest.fail("it downloads first"))
    with pytest.raises(ModuleNotFoundError) as error:
        fetch("robot-anymal")
    assert "pycollada" in missing_package(str(error.value.name)) or "[viki]" in missing_package(str(error.value.name))


def test_every_robot_comes_from_a_source_of_the_catalogue():
    assert set(robot_sources()) <= set(SOURCES)
    assert all(SOURCES[name].licence and SOURCES[name].prepare for name in robot_sources())


@pytest.mark.parametrize(
    ("name", "height"),
    [("unitree_h1", (1.6, 1.9)), ("gr1", (1.4, 1.8)), ("fetch", (1.0, 1.3)), ("unitree_go2", (0.35, 0.6)),
     ("anymal_c", (0.6, 1.1)), ("panda", (0.5, 1.1))],
)  # fmt: skip
def test_the_real_robots_stand_on_the_floor_at_their_height(name, height):
    pytest.importorskip("mujoco", reason="needs pip install 'fulgurite[viki]'")
    missing = [source for source in robot_sources() if not is_cached(source)]
    if missing:
        pytest.skip(f"needs `fulgurite fetch {' '.join(missing)}`")
    model = RobotModel.load(fetch(embodiments()[name].source) / f"{name}.npz")
    assert 5_000 < model.num_faces < 40_000
    low, high = standing(model, embodiments()[name].pose or {})
    assert height[0] < high - low < height[1]


def standing(model, pose):
    """Lowest and highest vertex of a robot in a pose (degrees, metres)."""
    import mujoco

    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    made = []
    for body in model.bodies:
        item = (made[body.parent] if made else spec.worldbody).add_body(name=body.name, pos=body.pos, quat=body.quat)
        item.mass, item.inertia, item.explicitinertial = 1.0, [1, 1, 1], True
        made.append(item)
        if body.joint:
            kinds = {"slide": mujoco.mjtJoint.mjJNT_SLIDE, "hinge": mujoco.mjtJoint.mjJNT_HINGE}
            item.add_joint(name=body.joint.name, type=kinds[body.joint.kind], axis=body.joint.axis)
    compiled = spec.compile()
    data = mujoco.MjData(compiled)
    for joint, value in pose.items():
        slides = compiled.joint(joint).type[0] == mujoco.mjtJoint.mjJNT_SLIDE
        data.joint(joint).qpos = value if slides else np.radians(value)
    mujoco.mj_kinematics(compiled, data)
    heights = [
        part.vertices @ data.xmat[part.body + 1].reshape(3, 3).T[:, 2] + data.xpos[part.body + 1][2]
        for part in model.parts
    ]
    return float(min(h.min() for h in heights)), float(max(h.max() for h in heights))
