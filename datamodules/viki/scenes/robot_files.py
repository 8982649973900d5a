"""Robots' own files (MJCF with STL or OBJ, URDF with DAE) into the light `RobotModel` files of the cache.

Run once by `fulgurite fetch`, after a package's files are unpacked. The meshes of the packages have up to half a
million triangles a robot, which a processor without a GPU draws in a third of a second; some ten thousand look the same
at the pictures' size.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .robot_model import Body, Embodiment, Joint, Part, RobotModel, embodiments

LICENCES = "LICENCE.txt"
_COLOUR_STEPS = np.array([[0.09, 0.09, 0.10], [0.30, 0.31, 0.33], [0.72, 0.08, 0.07], [0.80, 0.80, 0.80]])
_LOOKS_GROUP = {"robot0:base_link": 0}  # Fetch draws what other files keep for collisions: group 0 instead of 1
_UNSET = np.array([0.5, 0.5, 0.5, 1.0])  # MuJoCo's colour of a geom that was given none


def convert(folder: Path) -> None:
    """Replace the unpacked package in `folder` by one .npz for each robot whose file it holds, beside its licences."""
    held = {name: robot for name, robot in embodiments().items() if (folder / robot.file).is_file()}
    made = {name: convert_robot(folder, robot) for name, robot in held.items()}
    licences = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name.upper().startswith("LICEN")]
    text = "\n\n".join(f"== {f.relative_to(folder)}\n{f.read_text(encoding='utf-8')}" for f in licences)
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
    (folder / LICENCES).write_text(text, encoding="utf-8")
    for name, model in made.items():
        model.save(folder / f"{name}.npz")


def convert_robot(folder: Path, robot: Embodiment) -> RobotModel:
    """One robot of an unpacked package, its jointless bodies merged and its meshes thinned."""
    model = _read_urdf(folder / robot.file) if robot.file.endswith(".urdf") else _read_mjcf(folder, robot)
    kept = {mount.body for mount in (robot.camera, robot.grip) if mount} | set(robot.paint or ())
    return _thin(_by_colour(_merge_fixed(model, kept)), robot.num_faces)


def _read_mjcf(folder: Path, robot: Embodiment) -> RobotModel:
    import mujoco

    spec = mujoco.MjSpec.from_file(str(folder / robot.file))
    if robot.gripper:
        hand = mujoco.MjSpec.from_file(str(folder / robot.gripper["file"]))
        for kind in (hand.actuators, hand.sensors):
            for item in list(kind):
                hand.delete(item)
        spec.body(robot.gripper["onto"]).add_frame().attach_body(hand.body(robot.gripper["root"]), "hand/", "")
    model = spec.compile()
    root = model.body(robot.root).id
    group = _LOOKS_GROUP.get(robot.root, 1)
    numbers: dict[int, int] = {}
    bodies: list[Body] = []
    parts: list[Part] = []
    for i in range(root, model.nbody):
        parent = numbers.get(int(model.body_parentid[i]), -1)
        if i != root and parent < 0:
            continue
        numbers[i] = len(bodies)
        pos, quat = (model.body_pos[i], model.body_quat[i]) if i != root else (np.zeros(3), np.array([1.0, 0, 0, 0]))
        joint = _mjcf_joint(model, i) if i != root else None
        bodies.append(Body(model.body(i).name, parent, _floats(pos), _floats(quat), joint))
        for g in range(model.body_geomadr[i], model.body_geomadr[i] + model.body_geomnum[i]):
            if model.geom_group[g] != group:
                continue
            vertices, faces = _geom(model, g)
            rotated = vertices @ _matrix(model.geom_quat[g]).T + model.geom_pos[g]
            material, own = model.geom_matid[g], model.geom_rgba[g]
            rgba = model.mat_rgba[material] if material >= 0 and np.allclose(own, _UNSET) else own
            parts.append(Part(numbers[i], _floats(rgba), rotated, faces))
    return RobotModel(tuple(bodies), tuple(parts))


def _mjcf_joint(model: Any, body: int) -> Joint | None:
    import mujoco

    if not model.body_jntnum[body]:
        return None
    j = model.body_jntadr[body]
    kind = "slide" if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE else "hinge"
    limits = model.jnt_range[j] if model.jnt_limited[j] else (-np.pi, np.pi)
    return Joint(model.joint(j).name, kind, _floats(model.jnt_axis[j]), (float(limits[0]), float(limits[1])))


def _geom(model: Any, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of a mesh or box geom, in the geom's frame; nothing for other shapes, which no robot is drawn with."""
    import mujoco

    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        begin, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        return model.mesh_vert[first : first + count].astype(np.float64), model.mesh_face[begin : begin + faces].copy()
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * model.geom_size[geom]
        quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
        return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    return np.zeros((0, 3)), np.zeros((0, 3), np.int32)


def _read_urdf(path: Path) -> RobotModel:
    """Links and joints of a URDF whose visuals are DAE files in `../meshes`, textures beside them."""
    tree = ElementTree.parse(path).getroot()
    by_parent: dict[str, list[ElementTree.Element]] = defaultdict(list)
    for element in tree.findall("joint"):
        by_parent[element.find("parent").get("link")].append(element)  # type: ignore[union-attr, index]
    links = {str(link.get("name")): link for link in tree.findall("link")}
    children = {joint.find("child").get("link") for joints in by_parent.values() for joint in joints}  # type: ignore[union-attr]
    bodies: list[Body] = []
    parts: list[Part] = []
    waiting: list[tuple[str, int, ElementTree.Element | None]] = [(n, -1, None) for n in links if n not in children]
    while waiting:
        name, parent, joint = waiting.pop()
        pos, quat = _origin(joint)
        number = len(bodies)
        bodies.append(Body(name, parent, _floats(pos), _floats(quat), _urdf_joint(joint)))
        for visual in links[name].findall("visual"):
            mesh = visual.find("geometry/mesh")
            if mesh is None:
                continue
            offset, turn = _origin(visual)
            for vertices, faces, rgba in _dae(path.parents[1] / "meshes" / Path(str(mesh.get("filename"))).name):
                parts.append(Part(number, rgba, vertices @ _matrix(turn).T + offset, faces))
        waiting += [(str(j.find("child").get("link")), number, j) for j in by_parent[name]]  # type: ignore[union-attr]
    return RobotModel(tuple(bodies), tuple(parts))


def _urdf_joint(joint: ElementTree.Element | None) -> Joint | None:
    if joint is None or joint.get("type") == "fixed":
        return None
    axis, limit = joint.find("axis"), joint.find("limit")
    xyz = tuple(float(x) for x in str(axis.get("xyz") if axis is not None else "1 0 0").split())
    low, high = (limit.get("lower", "-3.1"), limit.get("upper", "3.1")) if limit is not None else ("-3.1", "3.1")
    return Joint(str(joint.get("name")), "hinge", xyz, (float(low), float(high)))


def _origin(element: ElementTree.Element | None) -> tuple[np.ndarray, np.ndarray]:
    """`<origin>` of an element as position and quaternion (w, x, y, z)."""
    origin = element.find("origin") if element is not None else None
    if origin is None:
        return np.zeros(3), np.array([1.0, 0, 0, 0])
    roll, pitch, yaw = (float(x) / 2 for x in str(origin.get("rpy", "0 0 0")).split())
    quat = _multiply(_multiply(_about(2, yaw), _about(1, pitch)), _about(0, roll))
    return np.array([float(x) for x in str(origin.get("xyz", "0 0 0")).split()]), quat


def _dae(path: Path) -> list[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Triangles of a DAE file: (vertices, faces, rgba), one entry for each colour that its texture shows.

    A triangle's colour is the texture's at its middle, rounded to black, grey, red or white, which ANYmal C is made of.
    """
    import collada
    from PIL import Image

    scene = collada.Collada(str(path), ignore=[collada.common.DaeUnsupportedError, collada.common.DaeBrokenRefError])
    scale = float(scene.assetInfo.unitmeter or 1.0)
    upright = np.eye(3) if scene.assetInfo.upaxis == "Z_UP" else np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    found = []
    for bound in scene.scene.objects("geometry"):
        for primitive in bound.primitives():
            if not isinstance(primitive, collada.triangleset.BoundTriangleSet):
                continue  # lines of the drawing
            corners = primitive.vertex[primitive.vertex_index] @ upright.T * scale  # [F, 3, 3]
            colours = np.tile(_COLOUR_STEPS[0], (len(corners), 1))
            texture = path.with_suffix(".jpg")
            if not texture.is_file():
                texture = path.with_name(f"{path.stem.rpartition('_')[0]}.jpg")
            if texture.is_file() and primitive.texcoordset:
                pixels = np.asarray(Image.open(texture).convert("RGB").resize((128, 128)), np.float64) / 255
                uv = primitive.texcoordset[0][primitive.texcoord_indexset[0]].mean(1) % 1.0  # [F, 2]
                cells = np.minimum((uv * 128).astype(int), 127)
                colours = pixels[127 - cells[:, 1], cells[:, 0]]
            nearest = ((colours[:, None] - _COLOUR_STEPS) ** 2).sum(-1).argmin(1)
            for step in np.unique(nearest):
                kept = corners[nearest == step].reshape(-1, 3)
                faces = np.arange(len(kept), dtype=np.int32).reshape(-1, 3)
                found.append((kept, faces, (*_floats(_COLOUR_STEPS[step]), 1.0)))
    return found


def _merge_fixed(model: RobotModel, kept: set[str]) -> RobotModel:
    """Bodies without a joint become one with their parent, but for the root and those that `kept` names."""
    numbers: list[int] = []
    places: list[tuple[np.ndarray, np.ndarray]] = []  # of each old body, in the frame of the new one
    bodies: list[Body] = []
    for body in model.bodies:
        pos, quat = np.array(body.pos), np.array(body.quat)
        if body.parent >= 0:  # in the frame of the body that took its parent up
            above, turn = places[body.parent]
            pos, quat = above + _matrix(turn) @ pos, _multiply(turn, quat)
        if body.parent >= 0 and body.joint is None and body.name not in kept:
            numbers.append(numbers[body.parent])
            places.append((pos, quat))
            continue
        parent = numbers[body.parent] if body.parent >= 0 else -1
        numbers.append(len(bodies))
        places.append((np.zeros(3), np.array([1.0, 0, 0, 0])))
        bodies.append(Body(body.name, parent, _floats(pos), _floats(quat), body.joint))
    parts = []
    for part in model.parts:
        offset, turn = places[part.body]
        parts.append(Part(numbers[part.body], part.rgba, part.vertices @ _matrix(turn).T + offset, part.faces))
    return RobotModel(tuple(bodies), tuple(parts))


def _by_colour(model: RobotModel) -> RobotModel:
    """One part for each body and colour, so that there is little to draw."""
    held: dict[tuple[int, tuple[float, ...]], list[Part]] = defaultdict(list)
    for part in model.parts:
        if len(part.faces):
            held[part.body, tuple(round(c, 2) for c in part.rgba)].append(part)
    parts = []
    for (body, rgba), group in held.items():
        starts = np.cumsum([0, *(len(part.vertices) for part in group)])
        faces = np.concatenate([part.faces + start for part, start in zip(group, starts, strict=False)])
        parts.append(Part(body, rgba, np.concatenate([part.vertices for part in group]), faces))
    return RobotModel(model.bodies, tuple(parts))


def _thin(model: RobotModel, num_faces: int) -> RobotModel:
    """Meshes with about `num_faces` triangles in all; large surfaces keep more than small ones."""
    import fast_simplification

    areas = np.array([_area(part) for part in model.parts])
    shares = np.sqrt(areas) / np.sqrt(areas).sum()
    parts = []
    for part, share in zip(model.parts, shares, strict=True):
        vertices, faces = _weld(part.vertices, part.faces)
        wanted = max(200, int(num_faces * share))
        if len(faces) > wanted:
            thinned = fast_simplification.simplify(vertices, faces, target_count=wanted, agg=7)
            vertices, faces = thinned[0], thinned[1]
        vertices, faces = _weld(np.asarray(vertices), np.asarray(faces))
        cell = 2e-3
        while len(faces) > 2 * wanted:  # open edges and loose pieces stop the simplifier: round to a grid
            vertices, faces = _weld(vertices, faces, cell)
            cell *= 1.3
        if len(faces):
            parts.append(Part(part.body, part.rgba, vertices, faces))
    return RobotModel(model.bodies, tuple(parts))


def _weld(vertices: np.ndarray, faces: np.ndarray, cell: float = 2e-5) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in one cell of a grid (in metres) become one; triangles that vanish and unused vertices are dropped."""
    cells = np.round(vertices / cell).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (a != c)]
    used, renumbered = np.unique(faces, return_inverse=True)
    return vertices[first][used].astype(np.float32), renumbered.reshape(-1, 3).astype(np.int32)


def _area(part: Part) -> float:
    a, b, c = (part.vertices[part.faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def _matrix(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _multiply(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Product of two quaternions (w, x, y, z)."""
    w, v, a, b = one[0], one[1:], other[0], other[1:]
    return np.concatenate([[w * a - v @ b], w * b + a * v + np.cross(v, b)])


def _about(axis: int, half: float) -> np.ndarray:
    """Quaternion of a turn by twice `half` radians about an axis."""
    quat = np.zeros(4)
    quat[0], quat[1 + axis] = np.cos(half), np.sin(half)
    return quat


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
