"""A receiver of webhooks on loopback that records requests and returns the given statuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.peers.serving import serving_in_a_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request; header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def identity(self) -> str:
        return self.headers["webhook-id"]


class WebhookReceiver(ThreadingHTTPServer):
    """Answers with the statuses of the test in turn; the last one repeats."""

    daemon_threads = True

    def __init__(self, statuses: tuple[int, ...], delay_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay_seconds = delay_seconds
        self.location = "/elsewhere"
        self._statuses = list(statuses)
        self._received: list[Received] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?token=secret"

    @property
    def received(self) -> list[Received]:
        """Return the requests in the order of their arrival."""
        with self._lock:
            return list(self._received)

    def take(self, request: Received) -> int:
        """Record a request; return the status to answer with."""
        with self._lock:
            self._received.append(request)
            return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebhookReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.take(Received(headers=headers, body=body))
        time.sleep(self.server.delay_seconds)  # noqa: TID251 - a slow server
        try:
            self.send_response(status)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Log nothing."""


@contextmanager
def receiving(*statuses: int, delay_seconds: float = 0.0) -> Iterator[WebhookReceiver]:
    """Receive on a free port inside the block."""
    with serving_in_a_thread(WebhookReceiver(statuses or (200,), delay_seconds)) as receiver:
        yield receiver
