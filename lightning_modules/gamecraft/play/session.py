"""One player's game: keys and mouse in, frames at the film's pace out, the model working one chunk ahead.

The model answers a chunk (33 frames) at a time, so what a player does while one chunk is shown shapes the next. The
later that decision falls, the sooner a key is seen: a session waits until the frames in its queue will last just longer
than a chunk has lately taken to make. A key then waits for at most one chunk and its making. Where the making takes as
long as the showing, the session works without a pause. A player who does nothing stands still: nothing is computed, and
the next key is answered as soon as its chunk is made.

Frames are numpy uint8 [H, W, 3]; times are seconds of the event loop's clock; angles are degrees.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ....datamodules.gamecraft.actions import CLIP_FRAMES, KEYS, Chord, SpeedLimits

FPS = 25.0
OPPOSITE = {"w": "s", "s": "w", "a": "d", "d": "a", "left": "right", "right": "left", "up": "down", "down": "up"}
WALKING = ("w", "s", "a", "d")
CHORD_WINDOW_S = 0.04  # from standing, the keys of a chord rarely go down in the same instant
LOOK_WINDOW_S = 0.12  # a mouse's first few pixels say little about how far it is going
MIN_LOOK_DEG = 0.5
LATE_SHARE, LATE_S = 1.1, 0.03  # how much longer than the slowest of the last chunks the next one may take
REMEMBERED = 6  # chunks whose making is remembered
KEPT_LATENCIES = 1000


class World(Protocol):
    """What a session plays: `GameCraftPipeline`, or anything else that answers chords with frames."""

    def start(self, image: Any, prompt: str = "") -> Any:
        """A state from a first frame (PIL image)."""

    def next_chunk(self, state: Any, chord: Chord) -> tuple[Any, Any]:
        """The chunk's frames, uint8 [1, 33, H, W, 3], and the state after it."""


@dataclass(frozen=True)
class Frame:
    """One frame to show.

    Attributes:
        picture: uint8 [H, W, 3].
        index: its number in the session, from 0.
        chunk: chunks made since the start frame; 0 is the start frame itself.
        chord: what shaped it, in the grammar of actions.
        answers: the number of the newest input that shaped it.
        generation_s: seconds that its chunk took.
        first: whether it is its chunk's first.
        rested: whether the player stood still before its chunk, so that a pause before it is none of the model's.
    """

    picture: np.ndarray
    index: int
    chunk: int
    chord: str
    answers: int
    generation_s: float
    first: bool
    rested: bool


class Controls:
    """What the player holds, has tapped and has turned since the last decision."""

    def __init__(self, limits: SpeedLimits | None = None) -> None:
        self.limits = limits or SpeedLimits()
        self.walk_speed = 1.0
        self.turn_speed = 1.0
        self.sequence = 0
        self._held: dict[str, float] = {}
        self._tapped: dict[str, float] = {}
        self._turn_deg = 0.0  # positive to the right
        self._look_deg = 0.0  # positive up
        self._pressed_at: list[float] = []

    def hold(self, keys: Iterable[str], now: float) -> None:
        """These keys are down and no others; one that goes down and up between two decisions still counts."""
        wanted = [k for k in keys if k in KEYS]
        for key in wanted:
            if key not in self._held:
                self._tapped[key] = now
                self._pressed_at.append(now)
        self._held = {k: self._held.get(k, now) for k in wanted}

    def look(self, turn_deg: float, look_deg: float) -> None:
        """The mouse turned the view to the right and up by so many degrees.

        What goes beyond a chunk's fastest turn is kept for the chunk after it; what goes beyond two is lost.
        """
        limits = self.limits
        most_turn, most_look = 2 * CLIP_FRAMES * limits.turn_deg, 2 * CLIP_FRAMES * limits.look_deg
        self._turn_deg = min(max(self._turn_deg + turn_deg, -most_turn), most_turn)
        self._look_deg = min(max(self._look_deg + look_deg, -most_look), most_look)

    @property
    def keys(self) -> list[str]:
        """The keys that shape the next chunk. Of two opposite ones, held beats tapped, then later earlier."""
        chosen = {**self._tapped, **self._held}

        def strength(key: str) -> tuple[bool, float]:
            return key in self._held, chosen[key]

        return [k for k in KEYS if k in chosen and (OPPOSITE[k] not in chosen or strength(k) > strength(OPPOSITE[k]))]

    @property
    def still(self) -> bool:
        """Whether nothing is asked for."""
        return not self.keys and max(abs(self._turn_deg), abs(self._look_deg)) < MIN_LOOK_DEG

    def decide(self) -> tuple[Chord, list[float]]:
        """The next chunk's chord, and when the keys that are new in it went down. Forgets taps and spent angles."""
        speeds = {k: self.walk_speed if k in WALKING else self.turn_speed for k in self.keys}
        turn = speeds.pop("right", 0.0) - speeds.pop("left", 0.0)
        look = speeds.pop("up", 0.0) - speeds.pop("down", 0.0)
        turn, self._turn_deg = _spend(turn, self._turn_deg, self.limits.turn_deg)
        look, self._look_deg = _spend(look, self._look_deg, self.limits.look_deg)
        speeds["right" if turn > 0 else "left"] = abs(turn)
        speeds["up" if look > 0 else "down"] = abs(look)
        pressed, self._pressed_at = self._pressed_at, []
        self._tapped.clear()
        return Chord.of(**{k: v for k, v in speeds.items() if v}), pressed


def _spend(fraction: float, waiting_deg: float, deg_per_frame: float) -> tuple[float, float]:
    """Keys' fraction and the mouse's degrees as one fraction in [-1, 1], and the degrees that did not fit."""
    whole_deg = CLIP_FRAMES * deg_per_frame
    total = min(max(fraction + waiting_deg / whole_deg, -1.0), 1.0)
    rest_deg = waiting_deg - (total - fraction) * whole_deg
    return total, rest_deg if abs(rest_deg) >= MIN_LOOK_DEG else 0.0


class GameSession:
    """A player's game. `run()` works ahead until cancelled; `frames()` gives each frame when it is due.

    Args:
        world: the model; called only through `executor`.
        executor: one worker thread, shared by all players: at most one player's chunk is computed at a time, and a
            compiled model is always called from the thread that warmed it up.
        fps: frames shown a second.
        limits: the speeds that fractions stand for.
    """

    def __init__(
        self, world: World, executor: Executor, *, fps: float = FPS, limits: SpeedLimits | None = None
    ) -> None:
        self.controls = Controls(limits)
        self.num_stalls = 0
        self.stalled_s = 0.0
        self.num_chunks = 0
        self.latencies_s: deque[float] = deque(maxlen=KEPT_LATENCIES)
        self.generation_s: deque[float] = deque(maxlen=REMEMBERED)
        self.fault: str | None = None
        self._world = world
        self._executor = executor
        self._period_s = 1.0 / fps
        self._queue: deque[Frame] = deque()
        self._pressed_at: dict[int, list[float]] = {}  # chunk -> when its new keys went down
        self._changed = asyncio.Event()  # an input, a wish for another start
        self._arrived = asyncio.Event()  # frames in the queue
        self._begin: tuple[Any, str] | None = None
        self._origin: tuple[Any, str] | None = None
        self._state: Any = None
        self._slot = -math.inf  # when the newest frame was due
        self._index = 0

    def begin(self, image: Any, prompt: str = "") -> None:
        """Play from this first frame (PIL image of the model's size) as soon as the chunk being made is done."""
        self._begin = self._origin = (image, prompt)
        self._changed.set()

    def restart(self) -> None:
        """Play from the last start frame again."""
        self._begin = self._origin
        self._changed.set()

    def hold(self, keys: Iterable[str], sequence: int) -> None:
        """The keys now down; `sequence` is the player's number of this input, which the frames it shapes carry back."""
        self.controls.hold(keys, asyncio.get_running_loop().time())
        self._note(sequence)

    def look(self, turn_deg: float, look_deg: float, sequence: int) -> None:
        """The mouse turned the view to the right and up by so many degrees."""
        self.controls.look(turn_deg, look_deg)
        self._note(sequence)

    def _note(self, sequence: int) -> None:
        self.controls.sequence = max(self.controls.sequence, sequence)
        self._changed.set()

    async def run(self) -> None:
        """Make chunks ahead of their showing, until cancelled.

        A fault of the model ends the game, not the session: `fault` holds its text until the next start frame.
        """
        loop = asyncio.get_running_loop()
        rested = True
        while True:
            self._changed.clear()
            if self._begin is not None:
                await self._start()
                rested = True
            elif self._state is None or self.controls.still:
                rested = rested or not self._queue or self._to_spare_s() <= 0
                await self._wait_for_input(self._to_spare_s() if self._queue and not rested else None)
            elif (spare_s := self._to_spare_s()) > 0:
                await self._wait_for_input(spare_s)
            else:
                if rested and not self._queue:
                    await asyncio.sleep(CHORD_WINDOW_S if self.controls.keys else LOOK_WINDOW_S)
                began = loop.time()
                await self._make_chunk(began, rested)
                rested = False

    async def _wait_for_input(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _to_spare_s(self) -> float:
        """Seconds until the next chunk has to be begun, so that it is made when the queue runs dry."""
        lead_s = max(self.generation_s, default=math.inf) * LATE_SHARE + LATE_S
        lead_s = min(lead_s, CLIP_FRAMES * self._period_s)  # after a slow chunk, don't pile up unsteered ones
        dry = self._slot + (len(self._queue) + 1) * self._period_s
        return dry - lead_s - asyncio.get_running_loop().time()

    async def _start(self) -> None:
        assert self._begin is not None
        (image, prompt), self._begin = self._begin, None
        self.controls.decide()  # taps and angles meant for the old game
        self._queue.clear()
        self._pressed_at.clear()
        self.fault = None
        try:
            self._state = await self._compute(self._world.start, image, prompt)
        except Exception as error:  # whatever the model says; the page shows it
            self._state, self.fault = None, f"{type(error).__name__}: {error}"
            return
        self.num_chunks = 0
        self._put([np.asarray(image.convert("RGB"))], Chord.of(), 0.0, True)

    async def _make_chunk(self, began: float, rested: bool) -> None:
        chord, pressed = self.controls.decide()
        answers = self.controls.sequence
        try:
            frames, state = await self._compute(self._world.next_chunk, self._state, chord)
        except Exception as error:
            self._state, self.fault = None, f"{type(error).__name__}: {error}"
            return
        taken_s = asyncio.get_running_loop().time() - began
        if self._begin is not None:  # another start is wanted: nobody is to see this chunk
            return
        self._state = state
        self.generation_s.append(taken_s)
        self.num_chunks += 1
        self._pressed_at[self.num_chunks] = pressed
        self._put(picture_arrays(frames), chord, taken_s, rested, answers)

    async def _compute(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _put(
        self, pictures: Iterable[np.ndarray], chord: Chord, generation_s: float, rested: bool, answers: int = 0
    ) -> None:
        keys = _shown(chord)
        for place, picture in enumerate(pictures):
            self._queue.append(
                Frame(picture, self._index, self.num_chunks, keys, answers, generation_s, place == 0, rested)
            )
            self._index += 1
        self._arrived.set()

    async def frames(self) -> AsyncIterator[Frame]:
        """Each frame at the moment when it is due, for ever. A gap that the player did not cause counts as a stall."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            due = self._slot + self._period_s
            if (early_s := due - loop.time()) > 0:
                await asyncio.sleep(early_s)
                if not self._queue:  # a restart emptied it meanwhile
                    continue
            frame = self._queue.popleft()
            now = loop.time()
            if now - due > self._period_s:
                if frame.first and not frame.rested:
                    self.num_stalls += 1
                    self.stalled_s += now - due
                due = now
            self._slot = due
            if frame.first:
                self.latencies_s.extend(now - t for t in self._pressed_at.pop(frame.chunk, ()))
            yield frame


def _shown(chord: Chord) -> str:
    return str(Chord(tuple(round(s, 2) for s in chord.speeds)))


def picture_arrays(frames: Any) -> list[np.ndarray]:
    """A chunk as `next_chunk` gives it (uint8 [1, F, H, W, 3], tensor or array) as F arrays [H, W, 3]."""
    array = frames.cpu().numpy() if hasattr(frames, "cpu") else np.asarray(frames)
    return list(array[0])
