"""The server: who may play, what garbage does, and that a closed page leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fulgurite.lightning_modules.gamecraft.play.messages import HEADER, MAX_MESSAGE_BYTES, Keys, parse_message
from fulgurite.lightning_modules.gamecraft.play.server import MAX_PLAYERS


def listen(socket: ClientConnection, wanted: Callable[[Any], bool], timeout_s: float = 10.0) -> Any:
    """The first message (JSON object, or bytes) that is `wanted`."""
    end = time.monotonic() + timeout_s
    while True:
        message = socket.recv(timeout=max(0.01, end - time.monotonic()))
        message = json.loads(message) if isinstance(message, str) else message
        if wanted(message):
            return message


def told(kind: str, **values: Any) -> Callable[[Any], bool]:
    """Whether a message is JSON of this type with these values."""
    return lambda m: isinstance(m, dict) and m["type"] == kind and all(m[k] == v for k, v in values.items())


def frame_of(chunk: int) -> Callable[[Any], bool]:
    """Whether a message is a frame of this chunk or a later one."""
    return lambda m: isinstance(m, bytes) and HEADER.unpack_from(m)[1] >= chunk


def open_page(running: Any) -> ClientConnection:
    """A WebSocket opened as the server's own page does."""
    return connect(running.socket, origin=running.origin, compression=None, proxy=None)


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def until(reached: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that the server does on its own."""
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_start_frame_comes_as_it_is_and_a_key_brings_moving_frames(running_server):
    running = running_server()
    with open_page(running) as page:
        hello = listen(page, told("hello"))
        assert (hello["height"], hello["width"], hello["fps"]) == (64, 112, 25.0)
        assert hello["starts"] == ["hall", "yard"]
        first = listen(page, frame_of(0))
        picture = np.frombuffer(first, np.uint8, offset=HEADER.size).reshape(64, 112, 3)
        assert (picture == (90, 60, 30)).all()
        say(page, type="start", name="yard")
        second = listen(page, frame_of(0))
        assert tuple(second[HEADER.size : HEADER.size + 3]) == (20, 90, 40)
        say(page, type="speed", walk=0.5, turn=1.0)
        say(page, type="keys", held=["w", "left"], seq=7)
        assert listen(page, told("chunk", number=1))["chord"] == "w@0.5+left"
        assert HEADER.unpack_from(listen(page, frame_of(1)))[2] == 7, "the frame names the input that shaped it"


def test_a_player_can_bring_any_picture(running_server):
    running = running_server()
    buffer = io.BytesIO()
    Image.new("RGB", (500, 900), (200, 10, 10)).save(buffer, "JPEG")
    with open_page(running) as page:
        listen(page, frame_of(0))
        page.send(buffer.getvalue())
        red, green, blue = listen(page, frame_of(0))[HEADER.size : HEADER.size + 3]
        assert red > 150 and green < 60 and blue < 60
        page.send(buffer.getvalue()[:200])
        assert "can't be read" in listen(page, told("notice"))["text"]


GARBAGE = [
    "",
    "{",
    "null",
    "[]",
    '"keys"',
    "1e999",
    "[" * 5000,
    '{"type": "keys"}',
    '{"type": "keys", "held": ["q"], "seq": 1}',
    '{"type": "keys", "held": "w", "seq": 1}',
    '{"type": "keys", "held": ["w"], "seq": -1}',
    '{"type": "keys", "held": [["w"]], "seq": 1}',
    '{"type": "look", "turn": NaN, "up": 0, "seq": 1}',
    '{"type": "look", "turn": 1e308, "up": 0, "seq": 1}',
    '{"type": "speed", "walk": 2, "turn": 0}',
    '{"type": "speed", "walk": true, "turn": 0}',
    '{"type": "start", "name": 3}',
    '{"type": "record", "on": "yes"}',
    '{"type": {}}',
    '{"type": "start", "name": "../../etc/passwd"}',
]


def test_garbage_is_ignored_and_counted_and_play_goes_on(running_server):
    running = running_server(seconds=0.02)
    rng = random.Random(0)
    noise = [rng.randbytes(rng.randrange(1, 400)) for _ in range(50)]
    with open_page(running) as page:
        for text in GARBAGE:
            page.send(text)
        for junk in noise:
            page.send(junk)
            page.send(junk.decode("latin-1"))
        listen(page, told("status", ignored=len(GARBAGE) + 2 * len(noise)))
        say(page, type="keys", held=["w"], seq=1)
        listen(page, frame_of(1))


def test_no_text_makes_the_parser_raise():
    from hypothesis import given
    from hypothesis import strategies as st

    atoms = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["w", "keys"])
    )
    trees = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
    kinds = st.sampled_from(["keys", "look", "speed", "start", "restart", "record"])
    fields = st.sampled_from(["held", "seq", "turn", "up", "walk", "name", "on"])

    @given(st.text() | st.builds(lambda k, d: json.dumps({"type": k, **d}), kinds, st.dictionaries(fields, trees)))
    def check(text: str) -> None:
        message = parse_message(text)
        assert not isinstance(message, Keys) or 0 <= message.sequence < 2**32

    check()


def test_a_message_larger_than_a_picture_ends_that_page_alone(running_server):
    running = running_server()
    with open_page(running) as other:
        with open_page(running) as page:
            page.send(b"\0" * (MAX_MESSAGE_BYTES + 1))
            until(lambda: len(running.server.players) == 1)
        say(other, type="keys", held=["d"], seq=1)
        listen(other, frame_of(1))


def test_two_pages_have_games_of_their_own_and_one_chunk_is_made_at_a_time(running_server):
    running = running_server(seconds=0.05)
    with open_page(running) as one, open_page(running) as two:
        say(one, type="keys", held=["w"], seq=1)
        say(two, type="keys", held=["left"], seq=1)
        assert listen(one, told("chunk", number=2))["chord"] == "w"
        assert listen(two, told("chunk", number=2))["chord"] == "left"
        assert running.world.most_at_once == 1
        assert len(running.world.threads) == 1, "a compiled model stays in the thread that warmed it up"


def test_one_page_too_many_is_told_so(running_server):
    running = running_server()
    with contextlib.ExitStack() as pages:
        for _ in range(MAX_PLAYERS):
            pages.enter_context(open_page(running))
        late = pages.enter_context(open_page(running))
        assert "Close one" in listen(late, told("full"))["text"]


@pytest.mark.parametrize("politely", [True, False])
def test_a_closed_page_frees_its_session_and_its_films(running_server, politely):
    running = running_server(seconds=0.02)
    with open_page(running) as page:
        say(page, type="record", on=True)
        say(page, type="keys", held=["w"], seq=1)
        listen(page, frame_of(2))
        say(page, type="record", on=False)
        found = listen(page, told("film"))
        with urllib.request.urlopen(running.origin + found["url"]) as answer:
            assert len(answer.read()) == found["bytes"]
        if not politely:
            page.socket.close()
    until(lambda: not running.server.players)
    assert running.server.films == {} and list(running.server.films_folder.iterdir()) == []
    time.sleep(0.1)
    made = len(running.world.chords)
    time.sleep(0.2)
    assert len(running.world.chords) == made, "nothing is computed for a page that is gone"


def test_a_failing_model_is_said_and_a_restart_goes_on(running_server):
    running = running_server(seconds=0.01, fails=True)
    with open_page(running) as page:
        say(page, type="keys", held=["w"], seq=1)
        assert listen(page, lambda m: told("status")(m) and m["fault"])["fault"] == "RuntimeError: out of memory"
        running.world.fails = False
        say(page, type="restart")
        listen(page, frame_of(1))


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_another_sites_page_can_not_open_the_game(running_server, origin):
    running = running_server()
    with pytest.raises(InvalidStatus) as refused:
        connect(running.socket, origin=origin, proxy=None)
    assert refused.value.response.status_code == 403


def test_a_foreign_name_for_the_loopback_is_refused_and_only_known_paths_are_served(running_server):
    running = running_server()

    def status(path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(running.origin + path, headers=headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/") == status("/app.js") == status("/style.css") == status("/starts/1") == 200
    assert status("/", Host="evil.example:80") == 403
    for path in ("/server.py", "/../server.py", "/starts/2", "/starts/-1", "/starts/²", "/films/x.mp4", "/films/"):
        assert status(urllib.parse.quote(path)) == 404, path
