"""Captions, filters, the choice of keys, and the map: pure functions that the recorder is made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.datamodules.gamecraft import captions
from fulgurite.datamodules.gamecraft.actions import COUNTERFACTUAL_CHORDS, KEYS, Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.datamodules.gamecraft.chord_policy import LOWEST_SPEED, draw_chord, path_of, plan_chord
from fulgurite.datamodules.gamecraft.filters import luminance_fault, motion_fault
from fulgurite.datamodules.gamecraft.synthetic import MOTIONS

pictures = np.random.default_rng(0).integers(60, 180, (66, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("frames", "fault"),
    [(pictures, None), (pictures // 8, "dark"), (pictures // 32 + 245, "bright"), (pictures * 0 + 90, "flat")],
)
def test_luminance_filter(frames, fault):
    assert luminance_fault(frames) == fault
    second_clip_bad = pictures.copy()
    second_clip_bad[33:] = frames[33:]
    assert luminance_fault(second_clip_bad) == fault


def test_motion_filter():
    chord = Chord.of(w=0.5)
    free = np.zeros((66, 3))
    free[:, 0] = 4 * np.arange(66)
    assert motion_fault(free, [chord, chord]) is None
    assert motion_fault(free, [chord, Chord.of(w=1.0)]) == "stuck"
    assert motion_fault(np.zeros((33, 3)), [Chord.of(left=1.0)]) is None
    fell = free.copy()
    fell[40:, 2] = -60
    assert motion_fault(fell, [chord, chord]) == "fell"


@given(st.integers(0, 2**32 - 1))
def test_captions_keep_to_the_vocabulary_and_name_no_direction(seed):
    rng = np.random.default_rng(seed)
    frames = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (33, 4, 4, 3))
    chords = [draw_chord(rng) for _ in range(4)]
    words = (
        captions.light_of(frames), captions.colour_of(frames), captions.place_of(rng.random(5) < 0.5),
        captions.verb_of(chords),
    )  # fmt: skip
    vocabularies = (captions.LIGHTS, captions.COLOURS, captions.PLACES, captions.VERBS)
    assert all(word in vocabulary for word, vocabulary in zip(words, vocabularies, strict=True))
    light, colour, place, verb = words
    short, long = captions.captions(light, colour, "stone", place, verb)
    assert len(short.replace(",", " ,").split()) <= 12 and len(long) > 60
    assert not {"left", "right", "back", "forward", "ahead"} & set(f"{short} {long}".split())


def test_verbs():
    assert captions.verb_of([Chord.of()]) == "standing still"
    assert captions.verb_of([Chord.of(s=1), Chord.of(w=1)]) == "walking"
    assert captions.verb_of([Chord.of(a=1), Chord.of(d=1)]) == "sidestepping"
    assert captions.verb_of([Chord.of(left=1), Chord.of(right=0.5)]) == "looking around"


def test_keys_are_drawn_as_said():
    """Forward most often, every key in at least one chunk of fifteen, speeds from 0.3 to 1, some standing still."""
    rng = np.random.default_rng(0)
    drawn = [draw_chord(rng) for _ in range(4000)]
    held = Counter(key for chord in drawn for key, speed in zip(KEYS, chord.speeds, strict=True) if speed)
    assert held["w"] == max(held.values()) and min(held.values()) > len(drawn) / 15
    speeds = [speed for chord in drawn for speed in chord.speeds if speed]
    assert min(speeds) >= LOWEST_SPEED and max(speeds) <= 1 and 0.6 < np.mean(speeds) < 0.7
    assert 0.02 < np.mean([chord == Chord.of() for chord in drawn]) < 0.06
    assert {len([s for s in chord.speeds if s]) for chord in drawn} == {0, 1, 2, 3}
    assert all(chord.speeds[KEYS.index("down")] == 0 for chord in (draw_chord(rng, 30.0) for _ in range(500)))


def test_walls_lead_to_turning_on_the_spot_only_where_nothing_else_fits():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ahead, aside, _, _ = plan_chord(rng, (0.0, 0.0, 0.0, 0.0), lambda _: False).axes()
        assert ahead == aside == 0
    moving = [plan_chord(rng, (0.0, 0.0, 0.0, 0.0), lambda path: path[-1, 0] < 0).axes() for _ in range(300)]
    assert np.mean([m[0] != 0 or m[1] != 0 for m in moving]) > 0.5


@given(st.sampled_from(COUNTERFACTUAL_CHORDS), st.floats(-180, 180))
def test_a_path_on_the_map_is_the_nominal_trajectory(chord, angle):
    path = path_of(chord, 100.0, -50.0, angle, 33)
    _, nominal, _ = trajectory(chord, 33, camera=ShearPitchCamera(64, 112))
    lengths = np.linalg.norm(path - path[0], axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(nominal[:, :3, 3], axis=1) * 150, atol=1e-9)


def test_synthetic_motions_cover_every_key_and_are_distinct():
    assert len(set(MOTIONS)) == len(MOTIONS) == 28
    assert min(Counter(key for keys in MOTIONS for key in keys).values()) >= 5


def test_points_of_a_map_lie_in_the_right_sector():
    vizdoom = pytest.importorskip("vizdoom")
    from pathlib import Path

    from fulgurite.datamodules.gamecraft.doom_map import load_map

    world = load_map(Path(vizdoom.__file__).parent / "freedoom2.wad", "MAP01")
    assert (world.sector_at(np.array([[1e5, 0.0], [0.0, -1e5]])) == -1).all()
    start = np.array([[-192.0, -192.0]])  # the player's start, whose view is 41 above a floor at 0
    assert world.floor_S[world.sector_at(start)[0]] == 0
    rng = np.random.default_rng(0)
    for _ in range(20):
        spot = world.draw_point(rng, 40.0)
        assert world.sector_at(spot[None])[0] >= 0 and world.clearance(spot[None])[0] >= 40
