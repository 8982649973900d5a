"""The action space and its grammar: what is written is read back, what can't be read is refused with its place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.datamodules.gamecraft.actions import (
    COUNTERFACTUAL_CHORDS,
    KEYS,
    Action,
    Chord,
    Segment,
    SpeedLimits,
    action_to_chord,
    chord_to_action,
    format_actions,
    parse_actions,
)
from fulgurite.registry import UserError

speed = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1, allow_subnormal=False))
chords = st.builds(Chord, st.tuples(*[speed] * len(KEYS)))
segments = st.builds(Segment, chords, st.integers(1, 100_000))
one_way = st.builds(
    lambda fractions: Chord(
        tuple(f for v in fractions for f in ((v, 0.0) if v >= 0 else (0.0, -v)))  # one key of each opposite pair
    ),
    st.tuples(*[st.floats(-1, 1).filter(lambda v: v == 0 or abs(v) > 1e-3)] * 4),
)


def test_the_documented_line_reads_as_the_docs_say():
    assert parse_actions("w@0.8:33 a@0.3+left@0.5:33 -:9 up") == [
        Segment(Chord.of(w=0.8), 33),
        Segment(Chord.of(a=0.3, left=0.5), 33),
        Segment(Chord.of(), 9),
        Segment(Chord.of(up=1.0), 33),
    ]
    assert str(Chord.of(w=0.8, left=0.5)) == "w@0.8+left@0.5"
    assert str(Chord.of(w=1)) == "w" and str(Chord.of()) == "-"
    assert parse_actions("W@.5+LEFT") == parse_actions("w@0.5+left@1.0:33")


@given(st.lists(segments, min_size=1, max_size=6))
def test_written_actions_read_back_equal(plan):
    assert parse_actions(format_actions(plan)) == plan


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_few_lines(text):
    try:
        plan = parse_actions(text)
    except UserError as error:
        lines = str(error).splitlines()
        assert len(lines) <= 6 and "character" in lines[0] and all(key in lines[1] for key in KEYS)
    else:
        assert parse_actions(format_actions(plan)) == plan


@pytest.mark.parametrize(
    ("text", "character", "said"),
    [
        ("", 1, "no action given"),
        ("w q@0.5", 3, "'q' is no key"),
        ("w+left@1.5", 8, "'1.5' is no speed from 0 to 1"),
        ("w@nan", 3, "'nan' is no speed"),
        ("w@-1", 3, "'-1' is no speed"),
        ("w:0", 3, "no number of frames"),
        ("w a:3.5", 5, "no number of frames"),
        ("w:", 3, "no number of frames"),
        ("w+w", 3, "held twice"),
        ("w+-", 3, "'-' is no key"),
        ("-@0.5", 1, "is no key"),
        ("w:٣", 3, "no number of frames"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, character, said):
    with pytest.raises(UserError) as error:
        parse_actions(text)
    assert f"character {character}:" in str(error.value) and said in str(error.value)


@given(chords)
def test_vector_and_back(chord):
    vector = chord.vector()
    assert vector.dtype == np.float32 and vector.shape == (8,)
    np.testing.assert_array_equal(Chord.from_vector(vector).vector(), vector)
    assert chord.inverted().inverted() == chord
    assert chord.inverted().axes() == tuple(-v for v in chord.axes())


@given(one_way)
def test_action_and_back(chord):
    action = chord_to_action(chord)
    for direction, length in ((action.d_trans, action.alpha), (action.d_rot, action.beta)):
        assert math.hypot(*direction) == pytest.approx(1 if length else 0)
    assert action.d_rot[2] == 0
    assert action_to_chord(action).speeds == pytest.approx(chord.speeds, abs=1e-9)


def test_directions_and_units():
    limits = SpeedLimits()
    assert chord_to_action(Chord.of(w=1)) == Action((0, 0, 1), (0, 0, 0), pytest.approx(8 / 150), 0)
    assert chord_to_action(Chord.of(d=0.5)).alpha == pytest.approx(3 / 150)
    assert chord_to_action(Chord.of(left=1)).d_rot == (0, -1, 0)
    assert chord_to_action(Chord.of(up=1)).d_rot == (1, 0, 0)
    assert chord_to_action(Chord.of(right=0.5)).beta == pytest.approx(limits.turn_deg / 2)
    assert chord_to_action(Chord.of(w=0.4, s=0.4)).alpha == 0


@pytest.mark.parametrize(
    "action",
    [
        Action((0, 0, 1), (0, 0, 0), 1.0, 0.0),
        Action((0, 1, 0), (0, 0, 0), 0.01, 0.0),
        Action((0, 0, 0), (0, 0, 1), 0.0, 1.0),
    ],
)
def test_an_action_no_keys_make_is_refused(action):
    with pytest.raises(UserError):
        action_to_chord(action)


def test_bad_chords_are_refused():
    for bad in (
        lambda: Chord.of(jump=1),
        lambda: Chord.of(w=1.1),
        lambda: Chord.of(w=float("nan")),
        lambda: Chord((1,)),
    ):
        with pytest.raises(UserError):
            bad()


def test_there_are_twelve_counterfactual_actions_all_different():
    actions = {chord_to_action(chord) for chord in COUNTERFACTUAL_CHORDS}
    assert len(COUNTERFACTUAL_CHORDS) == len(actions) == 12
