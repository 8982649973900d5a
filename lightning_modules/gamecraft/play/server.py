"""The local page's server: three static files, start frames and films over HTTP; the game over a WebSocket.

One port, bound to the loopback unless told otherwise. Every open page is a player with a session of its own; all share
one worker thread, so one player's chunk is computed at a time. A page of another site can't reach the game: a WebSocket
is opened only from the server's own origin, and on the loopback the Host must be a loopback name (no DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import io
import ipaddress
import json
import re
import secrets
import socket
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ....registry import UserError
from ..start_frames import fitted
from .film import film
from .messages import MAX_MESSAGE_BYTES, Begin, Keys, Look, Record, Speed, frame_message, parse_message
from .session import FPS, GameSession, World
from .starts import Start, read_picture

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
FILES = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
SOCKET = "/play"
MAX_PLAYERS = 8
MAX_FILM_BYTES = 512 << 20  # of raw frames: 15 minutes at 64x112
STATUS_EVERY_S = 0.25
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"


class PlayServer:
    """The page and its players.

    Args:
        world: the model, warmed up.
        starts: the gallery, at least one.
        height: rows of the model's frames.
        width: columns of the model's frames.
        title: what is being played, in a few words.
        fps: frames shown a second.
        caption_of: what the model is told about a picture that a player brings.

    Raises:
        UserError: if there is no start frame.
    """

    def __init__(
        self,
        world: World,
        starts: Sequence[Start],
        height: int,
        width: int,
        *,
        title: str = "",
        fps: float = FPS,
        caption_of: Callable[[Image.Image], str] = lambda image: "",
    ) -> None:
        if not starts:
            raise UserError("no start frame: put pictures into the folder starts/ of the weights, or give --image FILE")
        self.starts = {s.name: Start(s.name, fitted(s.image, height, width), s.caption) for s in starts}
        self.players: set[Player] = set()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="gamecraft")
        self.films: dict[str, Path] = {}
        self.films_folder = Path()
        self.world, self.size, self.title, self.fps = world, (height, width), title, fps
        self.caption_of = caption_of
        self._loopback = True

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve while the block runs; gives the page's address.

        Raises:
            UserError: if the address can't be had.
        """
        self._loopback = is_loopback(host)
        with contextlib.ExitStack() as stack:
            stack.callback(self.executor.shutdown, wait=False, cancel_futures=True)
            self.films_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gamecraft-films-")))
            try:
                server = await serve(
                    self._connected,
                    host,
                    port,
                    process_request=self._answer,
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    logger=_silent(),
                )
            except OSError as error:
                raise _no_address(host, port, error) from None
            async with server:
                bound = next(iter(server.sockets)).getsockname()
                yield f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}/"

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """An HTTP answer, or None to let a WebSocket be opened."""
        host = request.headers.get("Host", "")
        if self._loopback and not is_loopback(re.sub(r":\d+$", "", host).strip("[]")):
            return _response(http.HTTPStatus.FORBIDDEN, b"This server is reached by its loopback address only.\n")
        path = request.path.partition("?")[0]
        if path == SOCKET:
            if request.headers.get("Origin") != f"http://{host}":
                return _response(http.HTTPStatus.FORBIDDEN, b"The game is opened from its own page only.\n")
            return None
        if path in FILES:
            file = PAGE / FILES[path]
            return _response(http.HTTPStatus.OK, file.read_bytes(), TYPES[file.suffix])
        kind, _, name = path.strip("/").partition("/")
        if kind == "starts" and name.isdecimal() and int(name) < len(self.starts):
            return _response(http.HTTPStatus.OK, _png(list(self.starts.values())[int(name)]), "image/png")
        if kind == "films" and name in self.films:
            shown = {"Content-Disposition": 'attachment; filename="gamecraft.mp4"'}
            return _response(http.HTTPStatus.OK, self.films[name].read_bytes(), "video/mp4", shown)
        return _response(http.HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    async def _connected(self, connection: ServerConnection) -> None:
        if len(self.players) >= MAX_PLAYERS:
            text = f"{MAX_PLAYERS} pages are playing already. Close one and try again."
            await connection.send(json.dumps({"type": "full", "text": text}))
            return
        player = Player(self, connection)
        self.players.add(player)
        try:
            await player.play()
        finally:
            self.players.discard(player)
            player.forget_films()


class Player:
    """One open page."""

    def __init__(self, server: PlayServer, connection: ServerConnection) -> None:
        self.session = GameSession(server.world, server.executor, fps=server.fps)
        self.num_ignored = 0
        self._server = server
        self._connection = connection
        self._recorded: list[np.ndarray] | None = None
        self._films: list[str] = []
        self._encoding: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Play until the page is closed."""
        server = self._server
        height, width = server.size
        await self._say(
            type="hello", height=height, width=width, fps=server.fps, title=server.title, starts=list(server.starts)
        )
        first = next(iter(server.starts.values()))
        self.session.begin(first.image, first.caption)
        tasks = [
            asyncio.create_task(work)
            for work in (self.session.run(), self._show(), self._tell_status(), self._listen())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(ConnectionClosed):
                    task.result()
        finally:
            tasks.extend(self._encoding)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _say(self, **content: Any) -> None:
        await self._connection.send(json.dumps(content))

    async def _show(self) -> None:
        async for frame in self.session.frames():
            if frame.first:
                session = self.session
                median_s = statistics.median(session.latencies_s) if session.latencies_s else None
                await self._say(
                    type="chunk",
                    number=frame.chunk,
                    chord=frame.chord,
                    generation_ms=round(frame.generation_s * 1000),
                    latency_ms=None if median_s is None else round(median_s * 1000),
                    stalls=session.num_stalls,
                )
            if self._recorded is not None and frame.chunk:
                self._recorded.append(frame.picture)
                if len(self._recorded) * frame.picture.nbytes > MAX_FILM_BYTES:
                    await self._say(type="notice", text="The film is as long as it may be: recording ended.")
                    self._end_film()
            await self._connection.send(frame_message(frame))

    async def _tell_status(self) -> None:
        told: dict[str, Any] = {}
        while True:
            status = {
                "type": "status",
                "fault": self.session.fault,
                "ignored": self.num_ignored,
                "players": len(self._server.players),
                "recording": self._recorded is not None,
            }
            if status != told:
                await self._say(**status)
                told = status
            await asyncio.sleep(STATUS_EVERY_S)

    async def _listen(self) -> None:
        async for message in self._connection:
            if isinstance(message, bytes):
                await self._begin_from(message)
            else:
                await self._obey(message)

    async def _begin_from(self, picture: bytes) -> None:
        try:
            image = await asyncio.to_thread(lambda: fitted(read_picture(picture), *self._server.size))
        except UserError as error:
            self.num_ignored += 1
            await self._say(type="notice", text=str(error))
            return
        self.session.begin(image, self._server.caption_of(image))

    async def _obey(self, text: str) -> None:
        session, starts = self.session, self._server.starts
        match parse_message(text):
            case Keys(held, sequence):
                session.hold(held, sequence)
            case Look(turn_deg, look_deg, sequence):
                session.look(turn_deg, look_deg, sequence)
            case Speed(walk, turn):
                session.controls.walk_speed, session.controls.turn_speed = walk, turn
            case Begin(None):
                session.restart()
            case Begin(str(name)) if name in starts:
                session.begin(starts[name].image, starts[name].caption)
            case Record(True):
                self._recorded = [] if self._recorded is None else self._recorded
            case Record(False):
                self._end_film()
            case _:
                self.num_ignored += 1

    def _end_film(self) -> None:
        frames, self._recorded = self._recorded, None
        task = asyncio.create_task(self._deliver(frames or []))
        self._encoding.add(task)
        task.add_done_callback(self._encoding.discard)

    async def _deliver(self, frames: list[np.ndarray]) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._say(**await self._encode(frames))

    async def _encode(self, frames: list[np.ndarray]) -> dict[str, Any]:
        """Make a film; what to tell the page about it."""
        if not frames:
            return {"type": "notice", "text": "Nothing was recorded: a film holds what moves."}
        name = f"{secrets.token_urlsafe(12)}.mp4"
        path = self._server.films_folder / name
        try:
            await asyncio.to_thread(_write_film, path, frames, self._server.fps)
        except (UserError, ModuleNotFoundError) as error:
            return {"type": "notice", "text": f"No film: {error}"}
        self._server.films[name] = path
        self._films.append(name)
        return {"type": "film", "url": f"/films/{name}", "frames": len(frames), "bytes": path.stat().st_size}

    def forget_films(self) -> None:
        """Remove this page's films."""
        for name in self._films:
            self._server.films.pop(name).unlink(missing_ok=True)


def _write_film(path: Path, frames: list[np.ndarray], fps: float) -> None:
    with film(path, fps) as add:
        for frame in frames:
            add(frame)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _png(start: Start) -> bytes:
    buffer = io.BytesIO()
    start.image.save(buffer, "PNG")
    return buffer.getvalue()


def _response(
    status: http.HTTPStatus,
    body: bytes,
    content_type: str = "text/plain; charset=utf-8",
    extra: dict[str, str] | None = None,
) -> Response:
    headers = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Connection": "close",
            **(extra or {}),
        }
    )
    return Response(status.value, status.phrase, headers, body)


def _silent() -> Any:
    """A logger for what strangers do to the socket: nothing that belongs on a player's terminal."""
    import logging

    logger = logging.getLogger("fulgurite.gamecraft.play")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def check_address(host: str, port: int) -> None:
    """See that the address can be had, before a model is loaded for it.

    Raises:
        UserError: if it can't.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise _no_address(host, port, error) from None


def _no_address(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"{host}:{port}: can't listen there: {error.strerror or error}")


async def play_page(server: PlayServer, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until cancelled; `announce` is given its address."""
    async with server.listening(host, port) as address:
        announce(address)
        await asyncio.Event().wait()
