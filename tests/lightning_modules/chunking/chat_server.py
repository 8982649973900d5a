"""A server that speaks as much of the OpenAI protocol as the reader uses; a process of its own. No model answers here.

    python chat_server.py FOLDER

It writes its port to FOLDER/port, each request's body to FOLDER/request-N.json, and answers the N-th with the N-th
entry of FOLDER/script.json: {"status": 200, "text": …, "reason": "stop"}; the last one is repeated.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


class Handler(BaseHTTPRequestHandler):
    count = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        script = json.loads((FOLDER / "script.json").read_text(encoding="utf-8"))
        entry = script[min(Handler.count, len(script) - 1)]
        Handler.count += 1
        head = {"path": self.path, "authorization": self.headers.get("Authorization")}
        kept = {**head, "body": json.loads(body)}
        (FOLDER / f"request-{Handler.count}.json").write_text(json.dumps(kept), encoding="utf-8")
        answer = {
            "choices": [{"message": {"content": entry.get("text", "")}, "finish_reason": entry.get("reason", "stop")}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        }
        data = json.dumps(entry.get("raw", answer)).encode()
        self.send_response(entry.get("status", 200))
        self.send_header("Content-Length", str(len(data)))
        if "after" in entry:
            self.send_header("Retry-After", entry["after"])
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), Handler)
    (FOLDER / "port.new").write_text(str(server.server_port), encoding="utf-8")
    (FOLDER / "port.new").rename(FOLDER / "port")
    server.serve_forever()
