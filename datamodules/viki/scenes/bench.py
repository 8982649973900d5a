"""`fulgurite bench viki-scenes`: pictures a second of one processor core."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ....registry import COMMANDS, UserError
from ...files import write_json
from ..scene_description import (
    NUM_CAMERAS,
    NUM_LAYOUTS,
    NUM_LIGHTS,
    NUM_STYLES,
    Pose,
    SceneDescription,
    SceneObject,
    SceneRobot,
)  # fmt: skip

_ROBOTS = ("unitree_h1", "stompy", "fetch", "unitree_go2", "anymal_c", "panda")
_OBJECTS = ("apple", "plate", "bread", "knife", "cup")
_PLACES = ("kitchen work area", "kitchen island area", "table", "cabinet", "rack")


@COMMANDS.register("bench viki-scenes", paper="2506.09049")
def bench(scenes: int = 40, repeats: int = 5, json: Path | None = None) -> None:
    """Pictures a second of VIKI's scenes on one processor core, without a GPU or display.

    The scenes are crowded: all six robots and five objects, every layout and style in turn. Processor time counts the
    threads of the software renderer too, so that pictures a second of a core are 1 over it; other programs on the
    machine disturb it little. The model is compiled once, before. Each line is the median over the repeats, with the
    lowest and highest.

    Args:
        scenes: scenes a repeat.
        repeats: counted repeats; one more warms up.
        json: file for the numbers.

    Raises:
        UserError: if a number is below 1, or the pictures cannot be drawn here.
    """
    if scenes < 1 or repeats < 1:
        raise UserError(f"--scenes {scenes} --repeats {repeats}: at least 1")
    from .renderer import SceneRenderer

    drawn = [crowded_scene(number) for number in range(scenes)]
    begin = time.perf_counter()
    lines = {}
    with SceneRenderer() as renderer:
        ready_s = time.perf_counter() - begin
        for label, size in (("224x224", (224, 224)), ("600x336", (600, 336))):
            for name, view in (("global", "global"), ("own", "R1")):
                draw = functools.partial(renderer.render, views=(view,), size=size, visibility=False)
                lines[f"{name} view, {label}"] = _measure(draw, drawn, repeats)
        lines["what can be seen, 600x336"] = _measure(functools.partial(renderer.render, views=()), drawn, repeats)
    _show(lines, ready_s)
    if json is not None:
        fields = {"scenes": scenes, "repeats": repeats, "ready_s": ready_s}
        write_json(json, {**fields, "views": {name: {"cpu_s": c, "wall_s": w} for name, (c, w) in lines.items()}})


def crowded_scene(number: int) -> SceneDescription:
    """The scene of that number: every robot and an object in each place."""
    agents = ("R1", "R2", "R3", "", "", "")
    poses = [Pose((i % 3) / 2, 1.0 - i // 3, 40.0 * (i - 2)) for i in range(6)]
    robots = tuple(SceneRobot(*item) for item in zip(_ROBOTS, agents, poses, strict=True))
    objects = tuple(SceneObject(n, p, Pose(0.3, 0.4, 30.0 * number)) for n, p in zip(_OBJECTS, _PLACES, strict=True))
    return SceneDescription(
        number % NUM_LAYOUTS, number % NUM_STYLES, number % NUM_LIGHTS, number % NUM_CAMERAS, (0.0, 0.0, 0.0),
        robots, objects, ("table", "rack", "cabinet"), ("knife",), number,
    )  # fmt: skip


def _measure(
    draw: Callable[[SceneDescription], Any], scenes: list[SceneDescription], repeats: int
) -> tuple[list[float], list[float]]:
    """Processor and wall-clock seconds a scene, one number a repeat."""
    cpu_s, wall_s = [], []
    for repeat in range(repeats + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        for scene in scenes:
            draw(scene)
        if repeat:
            cpu_s.append((time.process_time() - cpu) / len(scenes))
            wall_s.append((time.perf_counter() - wall) / len(scenes))
    return cpu_s, wall_s


def _show(lines: dict[str, tuple[list[float], list[float]]], ready_s: float) -> None:
    table = Table("", "processor ms a picture", "pictures/s a core", "wall-clock ms a picture")
    for name, (cpu_s, wall_s) in lines.items():
        cpu, wall = (
            f"{1e3 * statistics.median(s):.1f} ({1e3 * min(s):.1f} to {1e3 * max(s):.1f})" for s in (cpu_s, wall_s)
        )
        table.add_row(name, cpu, f"{1 / statistics.median(cpu_s):.1f}", wall)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"ready after {ready_s:.1f} s: robots read, one model compiled, OpenGL begun")
