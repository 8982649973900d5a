"""MiniWorld as a second engine: its cameras are true, its units repeat, and it may be absent."""

from __future__ import annotations

import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import PinholeCamera, relative_to_first, trajectory
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.datamodules.gamecraft.miniworld import VERTICAL_FOV_DEG, MiniWorldEngine, record_rooms
from fulgurite.datamodules.gamecraft.recorder import record
from fulgurite.datamodules.gamecraft.units import plan_units
from fulgurite.registry import UserError

H, W = 64, 112


@pytest.fixture(scope="module")
def engine():
    try:
        rooms = MiniWorldEngine(height=H, width=W)
    except UserError as error:
        pytest.skip(str(error))  # not installed, or no off-screen OpenGL
    with rooms:
        yield rooms


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.square(a[where].astype(float) - b[where]).mean())))


@pytest.mark.parametrize(
    "chord",
    [Chord.of(w=0.8), Chord.of(d=0.8), Chord.of(left=0.6), Chord.of(up=1), Chord.of(s=0.6, right=0.5, down=1)],
    ids=str,
)
def test_depth_reprojection_agrees_with_the_poses(engine, chord):
    """Turning, sliding and true pitch: a picture warped by depth and poses is that of four frames later."""
    world, rng, gains = engine.load("fourrooms", 1), np.random.default_rng(0), []
    for _ in range(5):
        x, y = world.draw_point(rng)
        engine.place(float(x), float(y), 72.0, float(rng.uniform(0, 360)))
        shots = [engine.drive(chord) for _ in range(5)]
        k, c2w = engine.cameras(np.array([(s.x, s.y, s.z, s.angle_deg, s.pitch_deg) for s in (shots[0], shots[-1])]))
        depth_HW = cv2.resize(engine.depth(), (W, H), interpolation=cv2.INTER_NEAREST)
        row_HW, column_HW = np.mgrid[:H, :W] + 0.5
        ray_HW3 = np.stack([column_HW, row_HW, np.ones_like(row_HW)], -1) @ np.linalg.inv(k[1]).T
        point_HW3 = ray_HW3 * depth_HW[..., None] @ c2w[1, :3, :3].T + (c2w[1] - c2w[0])[:3, 3] * 150
        seen_HW3 = point_HW3 @ c2w[0, :3, :3] @ k[0].T
        x_HW, y_HW = (seen_HW3[..., axis] / seen_HW3[..., 2] - 0.5 for axis in (0, 1))
        made = cv2.remap(shots[0].frame_HW3, x_HW.astype(np.float32), y_HW.astype(np.float32), cv2.INTER_LINEAR)
        where = (x_HW >= 0) & (x_HW < W - 1) & (y_HW >= 0) & (y_HW < H - 1) & (seen_HW3[..., 2] > 1)
        frame = shots[-1].frame_HW3
        gains.append(psnr(made, frame, where) - psnr(shots[0].frame_HW3, frame, where))
    assert np.median(gains) > 3, np.round(gains, 1)


def test_motion_is_the_nominal_trajectory(engine):
    engine.load("oneroom", 0)
    chord = Chord.of(w=0.7, left=0.5, up=0.4)
    engine.place(10.0, 20.0, 70.0, 30.0)
    shots = [engine.drive(chord) for _ in range(33)]
    k, c2w = engine.cameras(np.array([(s.x, s.y, s.z, s.angle_deg, s.pitch_deg) for s in shots]))
    nominal_k, nominal, _ = trajectory(chord, 33, camera=PinholeCamera(H, W, VERTICAL_FOV_DEG))
    np.testing.assert_allclose(relative_to_first(c2w), nominal, atol=1e-9)
    np.testing.assert_allclose(k, nominal_k)


def test_units_repeat_to_the_bit(engine):
    unit = plan_units("synthetic", "synthetic", [("miniworld", "roomobjects")], 3, seed=1, num_clips=2)[0]
    first = list(record_rooms(engine, unit, Counter()))
    again = list(record_rooms(engine, unit, Counter()))
    assert [e.key for e in first] == [e.key for e in again] == unit.keys()
    for a, b in zip(first, again, strict=True):
        a.check()
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.c2w, b.c2w)
        assert a.meta["camera"] == "pinhole" and a.meta["game"] == "miniworld"


def test_the_recorder_puts_rooms_among_the_synthetic_episodes(engine, tmp_path):
    pytest.importorskip("vizdoom")
    options = {"num_clips": 1, "val_frames": 0, "test_frames": 0, "synthetic_frames": 99, "num_starts": 0, "workers": 1}
    record(tmp_path, num_frames=33, maps=["map01"], miniworld_frames=99, **options)
    assert Manifest.open(tmp_path / "synthetic").games == {"freedoom2": 3, "miniworld": 3}


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "miniworld.envs", None)  # as if it could not be found
    with pytest.raises(UserError, match="pip install miniworld"):
        MiniWorldEngine(height=H, width=W)
