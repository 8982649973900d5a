"""One MuJoCo model that holds every robot, object and fixture; a scene only moves and hides them.

Nothing is simulated: bodies have a nominal mass, and no geom collides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ...sources.download import fetch
from .kitchen import BACK, FIXTURES, HALF_WIDTH, STAND, STAND_HEIGHT, Slab, styles
from .objects import known_objects, object_looks
from .robot_model import Embodiment, RobotModel, embodiments

COPIES = 2
"""How many of each robot and of each object one scene can show."""
SHOWN, GLASS, HIDDEN = 0, 4, 5
"""Geom groups: drawn; drawn but looked through when it is asked what can be seen; not drawn."""

_FIXED_MATERIALS = {
    "metal": (0.62, 0.64, 0.67), "steel": (0.76, 0.77, 0.79), "dark": (0.10, 0.10, 0.11),
    "oven glass": (0.20, 0.17, 0.15), "basin": (0.50, 0.52, 0.55), "inside": (0.96, 0.95, 0.92),
    "toaster": (0.70, 0.12, 0.12), "shelf": (0.80, 0.80, 0.78), "window": (0.72, 0.87, 0.98),
    "glass": (0.70, 0.85, 0.95),
}  # fmt: skip
_GLOSS = {"metal": 0.6, "steel": 0.5, "glass": 0.3, "toaster": 0.4, "top": 0.2}
_TEXTURE_SIDE = 128


@dataclass(frozen=True)
class Thing:
    """Something that a scene can show.

    Attributes:
        body: MuJoCo's number of its first body, which the scene places.
        geoms: numbers of everything drawn of it.
        groups: the group of each geom while it is shown.
        base: height of the body's origin when it stands on the floor.
    """

    body: int
    geoms: np.ndarray
    groups: np.ndarray
    base: float = 0.0


@dataclass(frozen=True)
class Stage:
    """The compiled model and where things are in it.

    Attributes:
        model: MuJoCo's MjModel.
        robots: (name of the model, copy) -> thing.
        objects: (name, copy) -> thing.
        fixtures: name -> thing.
        qpos: joint positions [nq] at which every robot stands.
        textures: name -> number.
        materials: name -> number.
    """

    model: Any
    robots: Mapping[tuple[str, int], Thing]
    objects: Mapping[tuple[str, int], Thing]
    fixtures: Mapping[str, Thing]
    qpos: np.ndarray
    textures: Mapping[str, int]
    materials: Mapping[str, int]

    def things(self) -> list[Thing]:
        """All that can be shown or hidden."""
        return [*self.robots.values(), *self.objects.values(), *self.fixtures.values()]


def robot_sources() -> list[str]:
    """Names of the sources that hold the robots' meshes."""
    return sorted({robot.source for robot in embodiments().values()})


def load_robots() -> dict[str, RobotModel]:
    """The robots' models out of the cache; what is missing is fetched first.

    Raises:
        UserError: if one cannot be had, such as without a network; names the file to copy and where.
    """
    return {name: RobotModel.load(fetch(robot.source) / f"{name}.npz") for name, robot in embodiments().items()}


def build_stage(robots: Mapping[str, RobotModel], max_width: int, max_height: int) -> Stage:
    """Compile the one model that every scene is shown with.

    Args:
        robots: their looks, by the names of embodiments.yaml.
        max_width: largest width of a picture, in pixels.
        max_height: largest height.
    """
    import mujoco

    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.visual.global_.offwidth, spec.visual.global_.offheight = max_width, max_height
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 0, 4
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20.0
    spec.stat.extent, spec.stat.center = 3.0, [0.0, 1.0, 0.8]
    _add_materials(spec)
    _add_room(spec)
    for name, slabs in FIXTURES.items():
        body = spec.worldbody.add_body(name=f"fixture/{name}")
        for slab in slabs:
            _add_slab(body, slab)
    for name in known_objects():
        for i, look in enumerate(object_looks(name)):
            _add_mesh(spec, f"{name}/{i}", look.mesh.vertices, look.mesh.faces)
    for name, copy in product(known_objects(), range(COPIES)):
        body = spec.worldbody.add_body(name=f"object/{name}/{copy}")
        for i, look in enumerate(object_looks(name)):
            _add_mesh_geom(body, f"{name}/{i}", (*look.colour, 1.0))
    for name, looks in robots.items():
        for i, part in enumerate(looks.parts):
            _add_mesh(spec, f"{name}/part{i}", part.vertices, part.faces)
        for copy in range(COPIES):
            _add_robot(spec, name, copy, looks, embodiments()[name])
    _add_cameras_and_lights(spec)
    model = spec.compile()
    return _index(model, robots)


def _index(model: Any, robots: Mapping[str, RobotModel]) -> Stage:
    import mujoco

    qpos = np.zeros(model.nq)
    for name, copy in product(robots, range(COPIES)):
        for joint, value in (embodiments()[name].pose or {}).items():
            j = model.joint(f"robot/{name}/{copy}/{joint}")
            slides = j.type[0] == mujoco.mjtJoint.mjJNT_SLIDE
            qpos[j.qposadr[0]] = value if slides else np.radians(value)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    top = model.body_rootid
    things = {model.body(b).name: _thing(model, data, top, b) for b in range(1, model.nbody) if top[b] == b}
    return Stage(
        model,
        {(n, c): things[f"robot/{n}/{c}/{robots[n].bodies[0].name}"] for n, c in product(robots, range(COPIES))},
        {(n, c): things[f"object/{n}/{c}"] for n, c in product(known_objects(), range(COPIES))},
        {n: things[f"fixture/{n}"] for n in FIXTURES},
        qpos,
        {model.tex(t).name: t for t in range(model.ntex)},
        {model.mat(m).name: m for m in range(model.nmat)},
    )


def _thing(model: Any, data: Any, top: np.ndarray, body: int) -> Thing:
    """What hangs on a body of the world; its base puts the lowest vertex of a robot on the floor."""
    geoms = np.flatnonzero(top[model.geom_bodyid] == body)
    base = 0.0
    if model.body(body).name.startswith("robot/"):
        lowest = 0.0
        for g in geoms:
            if (mesh := model.geom_dataid[g]) >= 0:
                first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
                points = model.mesh_vert[first : first + count] @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
                lowest = min(lowest, float(points[:, 2].min()))
        base = -lowest if "/panda/" not in model.body(body).name else STAND_HEIGHT
    return Thing(body, geoms, model.geom_group[geoms].copy(), base)


def _add_robot(spec: Any, name: str, copy: int, looks: RobotModel, robot: Embodiment) -> None:
    import mujoco

    prefix, paint = f"robot/{name}/{copy}/", robot.paint or {}
    made: list[Any] = []
    for body in looks.bodies:
        parent = made[body.parent] if body.parent >= 0 else spec.worldbody
        item = parent.add_body(name=prefix + body.name, pos=body.pos, quat=body.quat)
        item.mass, item.inertia, item.explicitinertial = 1.0, [1.0, 1.0, 1.0], True
        made.append(item)
        if body.joint:
            kind = mujoco.mjtJoint.mjJNT_SLIDE if body.joint.kind == "slide" else mujoco.mjtJoint.mjJNT_HINGE
            item.add_joint(
                name=prefix + body.joint.name, type=kind, axis=body.joint.axis, range=body.joint.range, limited=True
            )
    for i, part in enumerate(looks.parts):
        dark = max(part.rgba[:3]) < 0.2 and "*" in paint  # joints and feet stay as they are
        colour = paint.get(looks.bodies[part.body].name, paint.get("*", part.rgba[:3]))
        _add_mesh_geom(made[part.body], f"{name}/part{i}", part.rgba if dark else (*colour[:3], 1.0))
    if name == "panda":
        for slab in STAND:
            _add_slab(made[0], Slab(slab.size, (slab.pos[0], slab.pos[1], slab.pos[2] - STAND_HEIGHT), slab.material))


def _add_mesh(spec: Any, name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    import mujoco

    mesh = spec.add_mesh(name=name)
    mesh.uservert = np.asarray(vertices, np.float64).reshape(-1).tolist()
    mesh.userface = np.asarray(faces, np.int32).reshape(-1).tolist()
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL


def _add_mesh_geom(body: Any, mesh: str, rgba: tuple[float, ...]) -> None:
    import mujoco

    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, rgba=rgba, group=SHOWN, contype=0, conaffinity=0, mass=0.0
    )


def _add_slab(body: Any, slab: Slab) -> None:
    import mujoco

    half = [slab.size[0] / 2, slab.size[2] / 2, 0.0] if slab.disc else [size / 2 for size in slab.size]
    kind = mujoco.mjtGeom.mjGEOM_CYLINDER if slab.disc else mujoco.mjtGeom.mjGEOM_BOX
    group = GLASS if slab.material == "glass" else SHOWN
    body.add_geom(
        type=kind, size=half, pos=slab.pos, material=slab.material, group=group, contype=0, conaffinity=0, mass=0.0
    )


def _add_room(spec: Any) -> None:
    room = spec.worldbody.add_body(name="room")
    high = 2.7
    for slab in (
        Slab((HALF_WIDTH * 2 + 4, 8.0, 0.02), (0, -1.2, -0.01), "floor"),
        Slab((0.5, 0.03, 0.7), (-1.9, BACK - 0.01, 1.9), "window"),
    ):
        _add_slab(room, slab)
    # a box's texture lies in its x-y plane, so that walls are lying boxes turned upright
    for pos, quat, length in (
        ((0, BACK + 0.01, high / 2), (0.7071068, 0.7071068, 0, 0), 2 * HALF_WIDTH),
        ((-HALF_WIDTH - 0.01, 0.9, high / 2), (0.5, 0.5, 0.5, 0.5), 3.6),
        ((HALF_WIDTH + 0.01, 0.9, high / 2), (0.5, 0.5, 0.5, 0.5), 3.6),
    ):
        body = room.add_body(pos=pos, quat=quat)
        _add_slab(body, Slab((length, high, 0.02), (0, 0, 0), "wall"))


def _add_cameras_and_lights(spec: Any) -> None:
    import mujoco

    spec.worldbody.add_camera(name="view")
    for lamp in ("lamp 0", "lamp 1"):
        spec.worldbody.add_light(name=lamp, castshadow=False, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)


def _add_materials(spec: Any) -> None:
    import mujoco

    for name, pixels in _textures().items():
        texture = spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=_TEXTURE_SIDE, height=_TEXTURE_SIDE
        )
        texture.nchannel = 3
        texture.data = pixels.tobytes()
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384)
    sky.builtin = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
    sky.rgb1, sky.rgb2 = [0.86, 0.88, 0.90], [0.66, 0.70, 0.75]
    names = [*_FIXED_MATERIALS, *styles()[0].materials]
    for name in names:
        material = spec.add_material(name=name, specular=_GLOSS.get(name, 0.05), shininess=0.4, reflectance=0.0)
        alpha = 0.16 if name == "glass" else 1.0
        material.rgba = [*_FIXED_MATERIALS.get(name, (0.8, 0.8, 0.8)), alpha]
        if name not in _FIXED_MATERIALS:
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "plain"
            material.texuniform, material.texrepeat = True, [1.2, 1.2]
    spec.material("door").texrepeat = [0.6, 0.6]


def _textures() -> dict[str, np.ndarray]:
    """Grey patterns [128, 128, 3] uint8 that a style's colour tints; drawn here, from a fixed seed."""
    rng = np.random.default_rng(0)
    side = _TEXTURE_SIDE
    y, x = np.mgrid[0:side, 0:side] / side
    noise = sum(
        np.sin(2 * np.pi * (fx * x + fy * y) + phase) / (1 + abs(fx) + abs(fy))
        for fx, fy, phase in zip(rng.integers(-5, 6, 24), rng.integers(-5, 6, 24), rng.uniform(0, 6.3, 24), strict=True)
    )
    plank = np.floor(y * 6)
    grain = np.sin(2 * np.pi * (x * 3 + plank * 0.37) + 3 * noise + 40 * (y * 6 % 1)) * 0.035
    wood = 0.92 + grain - 0.05 * (plank % 2) - 0.25 * ((y * 6) % 1 < 0.06)
    tiles = np.where(((x * 4) % 1 < 0.05) | ((y * 4) % 1 < 0.05), 0.72, 0.98 + 0.02 * noise)
    shifted = (x * 4 + 0.5 * (np.floor(y * 8) % 2)) % 1
    brick = np.where((shifted < 0.05) | ((y * 8) % 1 < 0.12), 1.0, 0.82 + 0.06 * noise)
    checker = np.where((np.floor(x * 4) + np.floor(y * 4)) % 2 > 0, 0.98, 0.62)
    marble = 0.97 - 0.10 * np.exp(-np.abs(np.sin(1.2 * noise + 2 * np.pi * (x + y))) * 14)
    patterns = {
        "plain": np.ones_like(x),
        "wood": wood,
        "tiles": tiles,
        "brick": brick,
        "checker": checker,
        "marble": marble,
    }
    return {
        name: np.repeat((np.clip(p, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2) for name, p in patterns.items()
    }
