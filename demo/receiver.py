"""An HTTP server on this machine that plays those who are told."""

from __future__ import annotations

import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Callable

MAX_BODY_BYTES = 1024 * 1024


class Refused(Exception):
    """A request that is not what it should be."""


# What takes a request: its headers and its body. It raises `Refused`, or has taken it.
Taker = Callable[[Message, bytes], None]


class Receiver:
    """Answers 201 to what its takers take, 403 to what they refuse, and keeps what they refused."""

    def __init__(self, takers: dict[str, Taker]) -> None:
        self.refused: list[str] = []
        refused = self.refused

        class Handler(BaseHTTPRequestHandler):
            """POST requests to the paths of the takers."""

            def do_POST(self) -> None:  # noqa: N802, the name is http.server's
                length = min(int(self.headers.get("content-length") or 0), MAX_BODY_BYTES)
                body = self.rfile.read(length)
                try:
                    if self.path not in takers:
                        raise Refused("nobody is there")
                    takers[self.path](self.headers, body)
                except Exception as error:  # a taker's mistake is a result of the demo, too
                    refused.append(f"{self.path}: {error!r}")
                    self.send_response(403)
                else:
                    self.send_response(201)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
