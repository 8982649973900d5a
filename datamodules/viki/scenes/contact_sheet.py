"""The command `viki sheet`: one picture of all robots, all objects, a scene of every family and a two-armed one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ....registry import COMMANDS, UserError
from ...files import atomic_write
from ..generator import draw_task, sub_families
from ..scene_description import Pose, SceneDescription, SceneObject, SceneRobot
from .objects import known_objects, object_extent
from .placing import Camera, body_of
from .robot_model import embodiments
from .settling import settle

ROBOTS = ("unitree_h1", "stompy", "fetch", "panda", "unitree_go2", "anymal_c")
COLUMNS, CELL = 6, (268, 150)
_CAPTION = 16
Tile = tuple[str, np.ndarray]


@COMMANDS.register("viki sheet", paper="2506.09049")
def sheet(out: Path, seed: int = 0) -> None:
    """Draw a contact sheet: every robot and its own view, every object, a scene of each family, and scenes of two arms.

    Args:
        out: picture to write, .jpg or .png.
        seed: of the scenes.

    Raises:
        UserError: for another kind of file, or if the pictures cannot be drawn here.
    """
    if out.suffix.lower() not in (".jpg", ".png"):
        raise UserError(f"'{out}' is no picture's name: end it in .jpg or .png")
    from PIL import Image

    from .renderer import SceneRenderer
    from .trajectories import trajectory_scene

    with SceneRenderer() as renderer:
        tiles = [*_robots(renderer), *_own_views(renderer), *_objects(renderer), *_families(renderer, seed)]
        for number in range(seed, seed + COLUMNS - len(tiles) % COLUMNS):
            scene = trajectory_scene(number, renderer)
            tiles.append((f"L3: {scene.own.carried} to {scene.own.target}", _fit(scene.picture)))
    with atomic_write(out) as partial:
        Image.fromarray(_lay_out(tiles)).save(partial, "PNG" if out.suffix.lower() == ".png" else "JPEG", quality=58)
    print(f"{len(tiles)} pictures in {out}")


def _robots(renderer: Any) -> Iterator[Tile]:
    for name in ROBOTS:
        robot = embodiments()[body_of(name)]
        scene = _empty(robots=(SceneRobot(name, "", Pose(0.5, 0.3, 35.0)),))
        arrangement = renderer.show(scene)
        middle = arrangement.robots[0][2].pos + np.array([0, 0, robot.height_m / 2])
        away = 0.55 + 0.95 * robot.height_m
        camera = Camera.looking(middle + np.array([0, -away, 0.3 * away]), middle, 60.0)
        shown = "GR-1 as stompy" if name == "stompy" else name
        yield shown, renderer.picture(camera, *CELL)


def _own_views(renderer: Any) -> Iterator[Tile]:
    things = (
        SceneObject("apple", "R1", Pose(0.5, 0.5)),
        SceneObject("banana", "kitchen work area", Pose(0.5, 0.5)),
    )
    for name in ROBOTS:
        robots = (SceneRobot(name, "R1", Pose(0.45, 0.2, 180.0)), SceneRobot("unitree_go2", "", Pose(0.9, 0.9, 60.0)))
        scene = _empty(robots=robots, objects=things)
        yield f"seen by {name}", renderer.render(scene, views=("R1",), size=CELL, visibility=False).views["R1"]


def _objects(renderer: Any) -> Iterator[Tile]:
    """All objects, three to a picture, on the table."""
    names = sorted(known_objects())
    for begin in range(0, len(names), 3):
        group = names[begin : begin + 3]
        poses = [Pose(k / 2, 0.1 + 0.8 * (k % 2), 20.0) for k in range(3)]
        scene = _empty(objects=tuple(SceneObject(n, "table", pose) for n, pose in zip(group, poses, strict=False)))
        arrangement = renderer.show(scene)
        spots = [spot.pos for _, _, spot in arrangement.objects]
        middle = np.mean(spots, axis=0) + np.array([0, 0, 0.5 * max(object_extent(n)[2] for n in group)])
        camera = Camera.looking(middle + np.array([0, -0.80, 0.65]), middle, 42.0)
        yield ", ".join(group), renderer.picture(camera, *CELL)


def _families(renderer: Any, seed: int) -> Iterator[Tile]:
    """The first scene of each family in the test splits, by the family's number."""
    found: dict[str, SceneDescription] = {}
    for split in ("test", "heldout_family"):
        missing = {family.name for family in sub_families(split)}
        for index in itertools.count():
            task = draw_task(split, index, seed)
            if task.family.name in missing:
                found[task.family.name] = task.scene
                missing.discard(task.family.name)
            if not missing:
                break
    for family, scene in sorted(found.items(), key=lambda item: [int(part) for part in item[0].split("-")]):
        settled, _ = settle(scene, renderer)
        yield (
            f"family {family}",
            renderer.render(settled, views=("global",), size=CELL, visibility=False).views["global"],
        )


def _empty(**fields: Any) -> SceneDescription:
    known: dict[str, Any] = {"robots": (), "objects": (), "fixtures": (), "cabinet": ()}
    return SceneDescription(
        layout=0, style=1, light=0, camera=0, camera_jitter=(0.0, 0.0, 0.0), seed=0, **{**known, **fields}
    )


def _fit(picture: np.ndarray) -> np.ndarray:
    """A square picture in the middle of a cell."""
    from PIL import Image

    cell = np.full((CELL[1], CELL[0], 3), 255, np.uint8)
    side = CELL[1]
    left = (CELL[0] - side) // 2
    cell[:, left : left + side] = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))
    return cell


def _lay_out(tiles: list[Tile]) -> np.ndarray:
    """Cells with their captions, row by row: uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw

    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * CELL[0], rows * (CELL[1] + _CAPTION)), "white")
    draw = ImageDraw.Draw(page)
    for number, (caption, picture) in enumerate(tiles):
        x, y = (number % COLUMNS) * CELL[0], (number // COLUMNS) * (CELL[1] + _CAPTION)
        page.paste(Image.fromarray(picture), (x, y + _CAPTION))
        draw.text((x + 4, y + 2), caption, fill="black")
    return np.asarray(page)
