"""A session: which keys shape the next chunk, when it is decided, and that motion does not halt."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fulgurite.datamodules.gamecraft.actions import CLIP_FRAMES, Chord, SpeedLimits
from fulgurite.lightning_modules.gamecraft.play.session import Controls, Frame, GameSession

FAST = 500.0  # frames a second: a chunk is shown in 66 ms


def test_a_tap_between_two_decisions_counts_and_a_held_key_goes_on():
    controls = Controls()
    controls.hold(["w", "left"], 1.0)
    controls.hold(["w"], 1.1)
    assert controls.decide() == (Chord.of(w=1.0, left=1.0), [1.0, 1.0])
    assert controls.decide() == (Chord.of(w=1.0), [])


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ((["a"], [], ["d"]), Chord.of(d=1.0)),  # held beats tapped
        ((["a"], [], ["d"], []), Chord.of(d=1.0)),  # of two taps, the later
        ((["a"], ["a", "d"]), Chord.of(d=1.0)),  # of two held, the later
        ((["a"], ["a", "d"], ["a"]), Chord.of(a=1.0)),
    ],
)
def test_of_two_opposite_keys_one_wins(held, expected):
    controls = Controls()
    for moment, keys in enumerate(held):
        controls.hold(keys, float(moment))
    assert controls.decide()[0] == expected


def test_sliders_set_the_speed_of_their_keys():
    controls = Controls()
    controls.walk_speed, controls.turn_speed = 0.4, 0.7
    controls.hold(["s", "up"], 0.0)
    assert controls.decide()[0] == Chord.of(s=0.4, up=0.7)


def test_the_mouse_turns_by_the_degrees_it_says_over_as_many_chunks_as_that_takes():
    limits = SpeedLimits()
    controls = Controls(limits)
    controls.look(120.0, -10.0)
    turned = looked = 0.0
    while not controls.still:
        _, _, left, up = controls.decide()[0].axes()
        turned -= left * CLIP_FRAMES * limits.turn_deg
        looked += up * CLIP_FRAMES * limits.look_deg
    assert turned == pytest.approx(120.0, abs=1e-6)
    assert looked == pytest.approx(-10.0, abs=1e-6)


def test_mouse_and_arrow_add_up_to_full_speed_at_most():
    controls = Controls()
    controls.hold(["left"], 0.0)
    controls.look(-40.0, 0.0)
    assert controls.decide()[0] == Chord.of(left=1.0)


class Play:
    """A session being played; every shown frame with the time it was shown at."""

    def __init__(self, world: Any, fps: float) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.session = GameSession(world, self.executor, fps=fps)
        self.shown: list[tuple[float, Frame]] = []

    async def __aenter__(self) -> Play:
        self.tasks = [asyncio.create_task(self.session.run()), asyncio.create_task(self._show())]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.executor.shutdown()

    async def _show(self) -> None:
        async for frame in self.session.frames():
            self.shown.append((asyncio.get_running_loop().time(), frame))

    async def until(self, reached: Any, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not reached():
                await asyncio.sleep(0.002)

    async def until_chunk(self, chunk: int) -> None:
        await self.until(lambda: self.shown and self.shown[-1][1].chunk >= chunk)


def test_nothing_is_computed_while_the_player_stands_still(moving_texture, start_picture):
    world = moving_texture(seconds=0.01)

    async def play() -> None:
        async with Play(world, FAST) as game:
            game.session.begin(start_picture)
            await game.until(lambda: game.shown)
            await asyncio.sleep(0.2)
            assert world.chords == []
            game.session.hold(["w"], 1)
            await game.until_chunk(1)
            game.session.hold([], 2)
            await asyncio.sleep(0.4)
            made = len(world.chords)
            await asyncio.sleep(0.2)
            assert len(world.chords) == made <= 3
            assert game.session.num_stalls == 0, "standing still is no stall"

    asyncio.run(play())


def test_frames_come_in_order_at_their_pace_without_a_stall(moving_texture, start_picture):
    world = moving_texture(seconds=0.1)

    async def play() -> list[tuple[float, Frame]]:
        async with Play(world, 100.0) as game:  # a chunk is shown in 330 ms
            game.session.begin(start_picture)
            game.session.hold(["w"], 1)
            await game.until_chunk(7)
            assert game.session.num_stalls == 0
            return game.shown

    shown = [(t, f) for t, f in asyncio.run(play()) if f.chunk in range(1, 7)]
    assert [f.index for _, f in shown] == list(range(1, 1 + 6 * CLIP_FRAMES))
    took_s = shown[-1][0] - shown[0][0]
    assert took_s == pytest.approx((len(shown) - 1) / 100.0, abs=0.1)


def test_a_model_slower_than_the_film_stalls_and_says_so(moving_texture, start_picture):
    async def play() -> None:
        async with Play(moving_texture(seconds=0.15), FAST) as game:
            game.session.begin(start_picture)
            game.session.hold(["w"], 1)
            await game.until_chunk(5)
            assert game.session.num_stalls >= 3
            assert game.session.stalled_s > 0.1

    asyncio.run(play())


def test_a_key_waits_for_at_most_one_chunk_and_its_making(moving_texture, start_picture):
    """Pressed at every place of a chunk; a session that always worked a whole chunk ahead would need up to two."""
    seconds, fps = 0.08, 110.0  # a chunk is shown in 300 ms

    async def play() -> list[float]:
        async with Play(moving_texture(seconds=seconds), fps) as game:
            game.session.begin(start_picture)
            game.session.hold(["w"], 1)
            await game.until_chunk(2)
            game.session.latencies_s.clear()
            for number, place in enumerate(range(0, CLIP_FRAMES, 4)):
                chunk = game.session.num_chunks + 1
                await game.until(
                    lambda chunk=chunk, place=place: (
                        game.shown[-1][1].chunk == chunk and game.shown[-1][1].index % CLIP_FRAMES >= place
                    )
                )
                game.session.hold(["w", "left"], 2 + 2 * number)
                game.session.hold(["w"], 3 + 2 * number)
            await game.until(lambda: len(game.session.latencies_s) >= 9)
            return sorted(game.session.latencies_s)

    latencies_s = asyncio.run(play())
    whole_s = CLIP_FRAMES / fps + seconds
    assert latencies_s[len(latencies_s) // 2] < whole_s
    assert latencies_s[-2] < whole_s + 0.08, "but for the machine's own hiccups"


def test_a_restart_plays_from_the_start_frame_and_a_fault_ends_only_the_game(moving_texture, start_picture):
    world = moving_texture(seconds=0.01)

    async def play() -> None:
        async with Play(world, FAST) as game:
            game.session.begin(start_picture)
            game.session.hold(["w"], 1)
            await game.until_chunk(2)
            world.fails = True
            await game.until(lambda: game.session.fault)
            assert game.session.fault == "RuntimeError: out of memory"
            world.fails = False
            game.session.restart()
            before = len(game.shown)
            await game.until(lambda: any(f.chunk == 0 for _, f in game.shown[before:]))
            await game.until_chunk(2)
            assert game.session.fault is None

    asyncio.run(play())
