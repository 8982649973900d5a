"""Poses, intrinsics and Plücker rays: against diffusers, against geometry, and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.gamecraft.actions import Chord, SpeedLimits
from fulgurite.datamodules.gamecraft.camera import (
    PITCH_RANGE_DEG,
    PinholeCamera,
    ShearPitchCamera,
    doom_c2w,
    invert_time,
    plucker_rays,
    relative_to_first,
    static_camera,
    trajectory,
)

H, W = 16, 28
DOOM = ShearPitchCamera(H, W)
PINHOLE = PinholeCamera(H, W, 60.0)
speeds = st.tuples(*[st.floats(0, 1)] * 8)


@given(speeds, st.sampled_from([DOOM, PINHOLE]), st.floats(*PITCH_RANGE_DEG))
@settings(max_examples=25, deadline=None)
def test_rays_agree_with_diffusers(speed, camera, pitch):
    from diffusers.pipelines.sana_wm.cam_utils import compute_raymap

    k, c2w, _ = trajectory(Chord(speed), 5, pitch_deg=pitch, camera=camera)
    ours = plucker_rays(k, c2w, H, W)
    assert ours.shape == (5, 6, H, W) and ours.dtype == torch.float32
    # theirs: direction first, pixel centres at whole numbers
    four = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2] - 0.5, k[:, 1, 2] - 0.5], axis=1)
    theirs = compute_raymap(torch.from_numpy(four), torch.from_numpy(c2w), H, W).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, torch.cat([theirs[:, 3:], theirs[:, :3]], 1).float(), atol=1e-6, rtol=1e-6)


def test_rays_take_leading_axes_and_float32():
    k, c2w, _ = trajectory(Chord.of(w=1, left=0.5), 3, camera=DOOM)
    one = plucker_rays(k, c2w, H, W)
    many = plucker_rays(torch.tensor(k).expand(2, 4, 3, 3, 3), torch.tensor(c2w).expand(2, 4, 3, 4, 4), H, W)
    assert many.shape == (2, 4, 3, 6, H, W)
    torch.testing.assert_close(many[1, 2], one)
    low = plucker_rays(torch.tensor(k).float(), torch.tensor(c2w).float(), H, W)
    torch.testing.assert_close(low, one, atol=1e-5, rtol=1e-4)


@given(speeds, st.floats(*PITCH_RANGE_DEG))
@settings(max_examples=30, deadline=None)
def test_poses_are_rigid_start_at_identity_and_do_not_roll(speed, pitch):
    for camera in (DOOM, PINHOLE):
        _, c2w, last = trajectory(Chord(speed), 33, pitch_deg=pitch, camera=camera)
        np.testing.assert_allclose(c2w[0], np.eye(4), atol=1e-12)
        rotation = c2w[:, :3, :3]
        np.testing.assert_allclose(
            rotation @ rotation.swapaxes(1, 2), np.broadcast_to(np.eye(3), (33, 3, 3)), atol=1e-12
        )
        assert PITCH_RANGE_DEG[0] <= last <= PITCH_RANGE_DEG[1]


def test_keys_move_the_way_they_say():
    limits = SpeedLimits()
    for key, axis, sign, speed in (("w", 2, 1, 8), ("s", 2, -1, 8), ("a", 0, -1, 6), ("d", 0, 1, 6)):
        _, c2w, _ = trajectory(Chord.of(**{key: 0.5}), 33, camera=DOOM)
        moved = c2w[32, :3, 3]
        assert moved[axis] == pytest.approx(sign * 0.5 * speed * 32 * limits.unit_scale)
        assert np.abs(np.delete(moved, axis)).max() == 0
    for key, sign in (("left", -1), ("right", 1)):
        _, c2w, _ = trajectory(Chord.of(**{key: 1.0}), 33, camera=DOOM)
        assert math.degrees(math.atan2(c2w[10, 0, 2], c2w[10, 2, 2])) == pytest.approx(sign * 30)


def test_pitch_is_shear_for_doom_and_rotation_for_a_pinhole():
    k, c2w, last = trajectory(Chord.of(down=1.0), 10, pitch_deg=5.0, camera=DOOM)
    assert last == 15.0
    np.testing.assert_array_equal(c2w, np.broadcast_to(np.eye(4), (10, 4, 4)))
    np.testing.assert_allclose(k[:, 1, 2], H / 2 - 0.8 * H * np.tan(np.radians(np.arange(6, 16))))
    k, c2w, _ = trajectory(Chord.of(up=1.0), 10, camera=PINHOLE)
    assert (k == k[0]).all() and c2w[9, 1, 2] == pytest.approx(-math.sin(math.radians(9)))  # looks up: y is down
    assert trajectory(Chord.of(up=1.0), 33, pitch_deg=-20.0, camera=DOOM)[2] == -32.0


@given(speeds, speeds, st.floats(-20, 20))
@settings(max_examples=20, deadline=None)
def test_pitch_carries_on_into_the_next_chunk(first, second, pitch):
    for camera in (DOOM, PINHOLE):
        chord = Chord(first)
        k, _, last = trajectory(chord, 12, pitch_deg=pitch, camera=camera)
        whole_k, whole, _ = trajectory(chord, 24, pitch_deg=pitch, camera=camera)
        next_k, following, _ = trajectory(chord, 12, pitch_deg=last, camera=camera)
        np.testing.assert_allclose(np.concatenate([k, next_k]), whole_k, atol=1e-9)
        np.testing.assert_allclose(relative_to_first(whole[12:]), following, atol=1e-9)


def test_doom_intrinsics_at_the_sizes_in_use():
    k = ShearPitchCamera(64, 112).intrinsics(np.zeros(1))[0]
    np.testing.assert_allclose(k, [[96 / 2.25, 0, 56], [0, 115.2 / 2.25, 32], [0, 0, 1]])


def test_a_doom_pose_has_opencv_axes():
    c2w = doom_c2w(150.0, 300.0, 41.0, 90.0)
    np.testing.assert_allclose(c2w[:3, 3], [1, 2, 41 / 150])
    np.testing.assert_allclose(c2w[:3, :3], np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T, atol=1e-12)
    turned = relative_to_first(doom_c2w([0, 0], [0, 0], [0, 0], [10, 13]))[1]  # three degrees to the left
    assert math.degrees(math.atan2(turned[0, 2], turned[2, 2])) == pytest.approx(-3)


@given(speeds)
@settings(max_examples=20, deadline=None)
def test_time_inverted_twice_is_as_before(speed):
    k, c2w, _ = trajectory(Chord(speed), 9, camera=PINHOLE)
    back_k, back = invert_time(k, c2w)
    np.testing.assert_allclose(back[0], np.eye(4), atol=1e-12)
    again_k, again = invert_time(torch.from_numpy(back_k), torch.from_numpy(back))
    np.testing.assert_allclose(again.numpy(), c2w, atol=1e-9)
    np.testing.assert_array_equal(again_k.numpy(), k)


def test_backwards_forward_is_back():
    _, ahead, _ = trajectory(Chord.of(w=0.7), 9, camera=DOOM)
    k, back, _ = trajectory(Chord.of(w=0.7).inverted(), 9, camera=DOOM)
    np.testing.assert_allclose(invert_time(k, ahead)[1], back, atol=1e-12)


def test_static_camera_is_identity_everywhere():
    k = torch.rand(2, 3, 3, 3)
    assert torch.equal(static_camera(k), torch.eye(4).expand(2, 3, 4, 4))
    assert static_camera(k.double().numpy()).dtype == np.float64
