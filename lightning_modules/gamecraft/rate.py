"""`fulgurite gamecraft rate`: people choose the better of two films of the same action, blind."""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import json
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from ...registry import COMMANDS, UserError

QUESTIONS = ("follows the keys better", "looks better", "better overall")  # two of the paper's five, and the whole
ANSWERS = ("left", "same", "right")
FILM_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".png": "image/png"}
COLUMNS = ("schema_version", "rater", "film", "question", "choice", "left", "seconds")
SCHEMA_VERSION = 1
_MAX_BODY = 4096
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Pair:
    """Two films of the same name.

    Attributes:
        name: the file's stem.
        a: film of the first folder.
        b: film of the second.
    """

    name: str
    a: Path
    b: Path


@COMMANDS.register("gamecraft rate", paper="2506.17201")
def rate(a: Path, b: Path, out: Path, rater: str = "anonymous", port: int = 0, seed: int = 0) -> None:
    """Show pairs of films on a local page, sides drawn at random, and write each answer to a CSV at once.

    The paper's user study (arXiv 2506.17201, section 5.1) has people score whole methods; a blind choice between two
    is its smallest honest form. Answers already in the CSV are not asked for again.

    Args:
        a: folder of films (mp4, webm, gif, png) of one model.
        b: folder of films of the other, with the same names.
        out: CSV that answers are added to: rater, film, question, choice (a, b or same), which of them was left.
        rater: name of who answers.
        port: of the page on 127.0.0.1; 0 = any free one.
        seed: of the order and the sides.
    """
    pairs = find_pairs(a, b)
    study = Study(pairs, out, rater, seed)
    server = serve(study, port)
    screen = Console(stderr=True)
    screen.print(f"{len(pairs)} pairs: http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C ends)", highlight=False)
    try:
        study.finished.wait() if study.remaining() else study.finished.set()
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()
    screen.print(study.summary(), highlight=False)


def find_pairs(a: Path, b: Path) -> list[Pair]:
    """Films that both folders have under the same name, sorted.

    Raises:
        UserError: if a folder is missing, or no name is in both.
    """
    films = []
    for folder in (a, b):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of films")
        films.append({f.stem: f for f in sorted(folder.iterdir()) if f.suffix.lower() in FILM_TYPES})
    names = sorted(films[0].keys() & films[1].keys())
    if not names:
        raise UserError(
            f"{a} and {b} have no film of the same name\n"
            f"Make them with the same --actions: fulgurite gamecraft play --actions … --out NAME.mp4\n"
            f"kinds: {', '.join(FILM_TYPES)}"
        )
    return [Pair(name, films[0][name], films[1][name]) for name in names]


class Study:
    """The pairs, which side each film is on, and the answers so far.

    Args:
        pairs: what to show.
        out: CSV of the answers.
        rater: who answers.
        seed: of order and sides; both also depend on the rater.

    Raises:
        UserError: if the CSV is of another form.
    """

    def __init__(self, pairs: Sequence[Pair], out: Path, rater: str, seed: int) -> None:
        self.out, self.rater = out, rater
        self.token = secrets.token_urlsafe(16)  # in the page's own requests, so that no other site can answer
        self.finished = threading.Event()
        self._lock = threading.Lock()
        self._pairs = sorted(pairs, key=lambda p: _draw(f"{seed}/{rater}/order/{p.name}"))
        self._a_left = {p.name: _draw(f"{seed}/{rater}/side/{p.name}") % 2 == 0 for p in pairs}
        self._answers = self._read()

    def remaining(self) -> list[Pair]:
        """Pairs without an answer to every question, in the order that they are shown."""
        done = {(r["film"], r["question"]) for r in self._answers if r["rater"] == self.rater}
        return [p for p in self._pairs if not all((p.name, q) in done for q in QUESTIONS)]

    def next(self) -> dict[str, Any]:
        """What the page shows next: nothing in it tells which film is whose."""
        left = self.remaining()
        if not left:
            return {"done": True, "count": len(self._pairs)}
        index = self._pairs.index(left[0])
        kinds = [self.film(index, side).suffix.lower() for side in ("left", "right")]
        video = [FILM_TYPES[k].startswith("video") for k in kinds]
        number = len(self._pairs) - len(left)
        return {"done": False, "index": index, "number": number, "count": len(self._pairs), "video": video,
                "questions": QUESTIONS}  # fmt: skip

    def film(self, index: int, side: str) -> Path:
        """The film of pair `index` on a side."""
        pair = self._pairs[index]
        return pair.a if (side == "left") == self._a_left[pair.name] else pair.b

    def answer(self, index: int, choices: Sequence[str], seconds: float) -> None:
        """Write the answers to one pair's questions, one row each.

        Raises:
            ValueError: if they are not one of left, same, right for each question, or there is no such pair.
        """
        if not 0 <= index < len(self._pairs) or len(choices) != len(QUESTIONS) or not set(choices) <= set(ANSWERS):
            raise ValueError("no such answer")
        with self._lock:
            pair = self._pairs[index]
            if pair not in self.remaining():
                return
            left = "a" if self._a_left[pair.name] else "b"
            named = {"left": left, "right": "b" if left == "a" else "a", "same": "same"}
            rows = [
                dict(zip(COLUMNS, (str(SCHEMA_VERSION), self.rater, pair.name, question, named[choice], left,
                                   f"{seconds:.1f}"), strict=True))
                for question, choice in zip(QUESTIONS, choices, strict=True)
            ]  # fmt: skip
            self._append(rows)
            self._answers += rows
            if not self.remaining():
                self.finished.set()

    def summary(self) -> str:
        """How often each was preferred, with the standard error over films, all raters together."""
        lines = []
        for question in QUESTIONS:
            chosen = [r["choice"] for r in self._answers if r["question"] == question]
            if chosen:
                share = sum(1.0 if c == "a" else 0.5 if c == "same" else 0.0 for c in chosen) / len(chosen)
                error = (share * (1 - share) / len(chosen)) ** 0.5
                lines.append(f"a {question}: {share:.0%} ± {error:.0%} of {len(chosen)} answers (a tie counts half)")
        return "\n".join(lines) or "no answer yet"

    def _read(self) -> list[dict[str, str]]:
        if not self.out.is_file():
            return []
        with open(self.out, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(f"{self.out}: not a CSV of answers\nits columns must be {','.join(COLUMNS)}")
            return list(reader)

    def _append(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if not self.out.is_file():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            writer.writeheader()
        writer.writerows(rows)
        with open(self.out, "a", encoding="utf-8", newline="") as file:  # one write: rows of a pair come whole
            file.write(text.getvalue())


def serve(study: Study, port: int) -> http.server.ThreadingHTTPServer:
    """Start the page's server on the loopback, in a thread; `shutdown()` ends it.

    Raises:
        UserError: if the port is taken.
    """
    page = resources.files(__package__).joinpath("rate_page.html").read_text(encoding="utf-8")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not _is_loopback(self.headers.get("Host", "")):
                return self._send(403, b"", "text/plain")
            path, _, _ = self.path.partition("?")
            if path == "/":
                return self._send(200, page.replace("{token}", study.token).encode(), "text/html; charset=utf-8")
            if path == "/next":
                return self._send(200, json.dumps(study.next()).encode(), "application/json")
            found = re.fullmatch(r"/film/(\d{1,9})/(left|right)", path)
            if not found or int(found[1]) >= len(study._pairs):
                return self._send(404, b"", "text/plain")
            film = study.film(int(found[1]), found[2])
            return self._send_film(film.read_bytes(), FILM_TYPES[film.suffix.lower()])

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            fits = length.isdigit() and int(length) <= _MAX_BODY
            if self.path != "/answer" or not fits or self.headers.get("X-Token") != study.token:
                return self._send(403, b"", "text/plain")
            try:
                said = json.loads(self.rfile.read(int(length)))
                study.answer(int(said["index"]), [str(c) for c in said["choices"]], float(said["seconds"]))
            except (ValueError, KeyError, TypeError):
                return self._send(400, b"", "text/plain")
            return self._send(200, b"{}", "application/json")

        def _send_film(self, body: bytes, kind: str) -> None:
            """Whole, or the range asked for: browsers loop a video only where ranges work."""
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if not asked or int(asked[1]) >= len(body):
                return self._send(200, body, kind, {"Accept-Ranges": "bytes"})
            first, last = int(asked[1]), min(int(asked[2] or len(body) - 1), len(body) - 1)
            extra = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{len(body)}"}
            return self._send(206, body[first : last + 1], kind, extra)

        def _send(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Cache-Control": "no-store", **(extra or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing on each request."""

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(f"port {port} can't be used: {error.strerror}\nGive another --port, or 0 for any.") from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _is_loopback(host: str) -> bool:
    """Whether a request names this machine: a page of another site can't then read ours through its own name."""
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost")


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
