"""The kinds of history come in their shares; orders give each item once a pass, or evenly over directions."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulgurite.datamodules.gamecraft.balance import BalancedOrder, PassOrder, direction_bins, invert_actions
from fulgurite.datamodules.gamecraft.history import HEADS, BatchSchedule


@pytest.mark.parametrize("shares", [(0.70, 0.05, 0.25), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.333, 0.333, 0.334)])
def test_the_kinds_come_in_their_shares_within_one_per_cent(shares: tuple[float, float, float]) -> None:
    schedule = BatchSchedule(HEADS, shares, seed=3)
    kinds = [schedule.kind(b) for b in range(4000)]
    for head, share in zip(HEADS, shares, strict=True):
        assert abs(kinds.count(head) / len(kinds) - share) <= 0.01


def test_the_kind_is_a_function_of_seed_and_batch_and_does_vary() -> None:
    forwards, jumping = BatchSchedule(HEADS, (0.7, 0.05, 0.25), 0), BatchSchedule(HEADS, (0.7, 0.05, 0.25), 0)
    kinds = [forwards.kind(b) for b in range(100)]
    assert [jumping.kind(b) for b in (77, 3, 99, 41)] == [kinds[b] for b in (77, 3, 99, 41)]
    assert kinds != [BatchSchedule(HEADS, (0.7, 0.05, 0.25), 1).kind(b) for b in range(100)]
    assert kinds[:20] != kinds[20:40]


def test_earlier_batches_are_counted_without_walking_through_them() -> None:
    schedule = BatchSchedule(HEADS, (0.7, 0.05, 0.25), 5)
    kinds = [schedule.kind(b) for b in range(90)]
    for batch in range(90):
        assert schedule.earlier(batch, ["clips"]) == kinds[:batch].count("clips")
        assert schedule.earlier(batch, ["clip", "frame"]) == batch - kinds[:batch].count("clips")


@pytest.mark.parametrize("shares", [(0.7, 0.7, -0.4), (0.5, 0.2, 0.2), (1.0,)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        BatchSchedule(HEADS, shares, 0)


@given(size=st.integers(1, 40), start=st.integers(0, 5), seed=st.integers(0, 99), step=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_each_pass_gives_each_item_once_in_any_cut(size: int, start: int, seed: int, step: int) -> None:
    order = PassOrder(size, (seed,))
    places = numpy.arange(start * size, (start + 1) * size)
    items = numpy.concatenate([order.items(places[i : i + step]) for i in range(0, size, step)])
    assert sorted(items.tolist()) == list(range(size))
    assert numpy.array_equal(PassOrder(size, (seed,)).items(places), items)


def test_directions_have_bins_of_their_own() -> None:
    ways = numpy.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], float)
    assert direction_bins(ways).tolist() == list(range(27))
    assert direction_bins(0.01 * ways).tolist() == [13] * 27
    assert direction_bins(numpy.array([[0.3, 0, 1.0], [0.5, 0, 1.0]])).tolist() == [14, 23]  # 17 and 27 degrees


def test_a_forward_bias_is_balanced_away() -> None:
    rng = numpy.random.default_rng(0)
    moves = numpy.where(rng.random((1000, 1)) < 0.95, [[0.0, 0, 1]], [[0.0, 0, -1]])
    bins = direction_bins(moves)
    items = BalancedOrder(bins, (0,)).items(numpy.arange(2000))
    assert (moves[items, 2] < 0).mean() == 0.5
    rare = items[moves[items, 2] < 0]
    assert numpy.ptp(numpy.bincount(rare)[numpy.flatnonzero(moves[:, 2] < 0)]) <= 1  # each of the rare ones as often


def test_actions_backwards_are_the_opposite_keys() -> None:
    actions = numpy.array([[0.8, 0, 0.3, 0, 0.5, 0, 0, 0.1]])
    assert invert_actions(actions).tolist() == [[0, 0.8, 0, 0.3, 0, 0.5, 0.1, 0]]
