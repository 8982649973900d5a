"""The engine: chords move it as the nominal trajectory says, its poses are true, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, doom_c2w, relative_to_first, trajectory
from fulgurite.datamodules.gamecraft.chord_policy import path_of, walkable
from fulgurite.datamodules.gamecraft.doom import DoomEngine, Shot, render_size
from fulgurite.registry import UserError

pytest.importorskip("vizdoom")

DEPTH_STEP = 7.5  # map units a grey level of the depth buffer


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cwd")
    before = os.getcwd()
    os.chdir(folder)
    try:
        with DoomEngine("freedoom2", height=144, width=252, depth=True) as doom:
            yield doom
        assert list(folder.iterdir()) == []  # no _vizdoom.ini, no _vizdoom/
    finally:
        os.chdir(before)


def poses(shots: list[Shot]) -> np.ndarray:
    return doom_c2w(*np.array([(s.x, s.y, s.z, s.angle_deg) for s in shots]).T)


def in_the_open(engine: DoomEngine, seed: int = 0, chords: tuple[Chord, ...] = (Chord.of(),)) -> None:
    """Place the camera at rest where the chords, one after the other for a chunk each, have room on level floor."""
    world, rng = engine.load("map01", seed), np.random.default_rng(seed)
    for _ in range(2000):
        spot = world.draw_point(rng, 64)
        assert spot is not None
        x, y, angle = *(float(v) for v in spot), float(rng.uniform(0, 360))
        paths, end, heading = [], (x, y), angle
        for chord in chords:
            paths.append(path_of(chord, *end, heading, 33))
            end, heading = tuple(paths[-1][-1]), heading + chord.axes()[2] * engine.limits.turn_deg * 33
        floors = world.floor_S[world.sector_at(np.concatenate(paths))]
        if np.ptp(floors) == 0 and all(walkable(world, path) for path in paths):
            assert engine.place(int(x), int(y), angle)
            return
    pytest.fail("no such spot")


@pytest.mark.parametrize(
    "chord",
    [Chord.of(w=1), Chord.of(s=0.3), Chord.of(d=0.7), Chord.of(w=0.8, left=0.8), Chord.of(a=0.5, right=1)],
    ids=str,
)
def test_free_space_motion_is_the_nominal_trajectory(engine, chord):
    """From the first frame on, whatever came before: translation within 3 % and a third of a unit, rotation exact."""
    before = Chord.of(w=0.6, right=0.3)
    for seed in range(3):
        in_the_open(engine, seed, (before, chord))
        for _ in range(33):
            engine.drive(before)
        real = relative_to_first(poses([engine.drive(chord) for _ in range(33)]))
        _, nominal, _ = trajectory(chord, 33, camera=ShearPitchCamera(144, 252))
        error = np.linalg.norm(real[:, :3, 3] - nominal[:, :3, 3], axis=1) * 150
        way = np.linalg.norm(nominal[:, :3, 3], axis=1) * 150
        assert (error <= 0.03 * way + 0.35).all()
        np.testing.assert_allclose(real[:, :3, :3], nominal[:, :3, :3], atol=np.radians(0.012))


def test_pitch_follows_the_keys_and_stops_at_its_bounds(engine):
    in_the_open(engine)
    up = [engine.drive(Chord.of(up=1.0)).pitch_deg for _ in range(40)]
    assert up[0] == pytest.approx(-1, abs=0.02) and up[-1] == pytest.approx(-32, abs=0.1)
    down = [engine.drive(Chord.of(down=1.0)).pitch_deg for _ in range(90)]
    assert down[9] == pytest.approx(-22, abs=0.1) and down[-1] == pytest.approx(56, abs=0.1)


def warp(source: Shot, target: Shot, camera: ShearPitchCamera) -> tuple[np.ndarray, np.ndarray]:
    """The target's picture made from the source's by the target's depth and both poses; and where that is defined."""
    k_source, k_target = camera.intrinsics(np.array([source.pitch_deg, target.pitch_deg]))
    c2w_source, c2w_target = poses([source, target]) * [[1, 1, 1, 150], [1, 1, 1, 150], [1, 1, 1, 150], [0, 0, 0, 1]]
    y_HW, x_HW = np.mgrid[: camera.height, : camera.width] + 0.5
    depth_HW = (target.depth_HW.astype(np.float64) + 0.5) * DEPTH_STEP
    ray_HW3 = np.stack([x_HW, y_HW, np.ones_like(x_HW)], -1) @ np.linalg.inv(k_target).T
    point_HW3 = (ray_HW3 * depth_HW[..., None]) @ c2w_target[:3, :3].T + c2w_target[:3, 3] - c2w_source[:3, 3]
    seen_HW3 = point_HW3 @ c2w_source[:3, :3] @ k_source.T
    column_HW, row_HW = seen_HW3[..., 0] / seen_HW3[..., 2] - 0.5, seen_HW3[..., 1] / seen_HW3[..., 2] - 0.5
    made = cv2.remap(
        source.frame_HW3, column_HW.astype(np.float32), row_HW.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = (column_HW >= 0) & (column_HW < camera.width - 1) & (row_HW >= 0) & (row_HW < camera.height - 1)
    return made, inside & (seen_HW3[..., 2] > 1) & (target.depth_HW < 250)


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.square(a[where].astype(float) - b[where]).mean())))


def test_depth_reprojection_agrees_with_the_poses(engine):
    """Median PSNR at one tic at least 5 dB over the unwarped copy, on real frames, for moves of every key."""
    camera = ShearPitchCamera(144, 252)
    chords = (
        Chord.of(w=0.9), Chord.of(w=0.8, left=0.5), Chord.of(d=0.9), Chord.of(left=0.7), Chord.of(right=0.4, down=0.6),
        Chord.of(up=1.0), Chord.of(s=0.6, right=0.6),
    )  # fmt: skip
    gains, late = [], []
    for seed in range(3):
        for chord in chords:
            in_the_open(engine, seed, (chord,))
            shots = [engine.drive(chord) for _ in range(10)]
            for gap, found in ((1, gains), (8, late)):
                made, where = warp(shots[0], shots[gap], camera)
                copied = psnr(shots[0].frame_HW3, shots[gap].frame_HW3, where)
                found.append(psnr(made, shots[gap].frame_HW3, where) - copied)
    print(f"gain at 1 tic {np.median(gains):.1f} dB, at 8 tics {np.median(late):.1f} dB")
    assert np.median(gains) >= 5, np.round(gains, 1)
    assert np.median(late) >= 2, np.round(late, 1)


def test_a_reloaded_level_replays_to_the_last_bit(engine):
    def play() -> list[Shot]:
        engine.load("map07", 11)
        engine.place(64, 64, 30.0)
        return [engine.drive(Chord.of(w=0.7, left=0.5)) for _ in range(20)]

    first = play()
    in_the_open(engine)
    engine.drive(Chord.of(up=1.0, w=1.0))
    for a, b in zip(first, play(), strict=True):
        assert (a.x, a.y, a.z, a.angle_deg, a.pitch_deg) == (b.x, b.y, b.z, b.angle_deg, b.pitch_deg)
        np.testing.assert_array_equal(a.frame_HW3, b.frame_HW3)


def test_render_sizes():
    assert render_size(64, 112) == (144, 256)
    assert render_size(128, 224) == (288, 512)
    assert render_size(256, 448) == (576, 1024)
    assert render_size(120, 160) == (120, 160)
    with pytest.raises(UserError, match="no resolution of ViZDoom"):
        render_size(2000, 3000)


def test_a_missing_map_is_named(engine):
    with pytest.raises(UserError, match="no map 'e1m1'"):
        engine.load("e1m1", 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_process_leaves_no_engine():
    code = (
        "import time\nfrom fulgurite.datamodules.gamecraft.doom import DoomEngine\n"
        "e = DoomEngine('freedoom2', height=64, width=112)\nprint(e.engine_pid, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the engine outlived its process")
