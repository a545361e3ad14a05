"""A provider on loopback with a limit per minute that it does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.peers.admission import Admission
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.serving import serving_in_a_thread

SLOW_DOWN = b'{"error":{"message":"slow down"}}'


class LimitingServer(AnsweringServer):
    """Refuses with 429 and a `Retry-After` what is beyond its limit."""

    request_queue_size = 512

    def __init__(self, admission: Admission, delay_seconds: float) -> None:
        super().__init__(delay_seconds, LimitingHandler)
        self.admission = admission


class LimitingHandler(AnsweringHandler):
    """Talks to one client."""

    server: LimitingServer

    def converse(self, user: str) -> None:
        """Answer, if there is room."""
        wait = self.server.admission.wait_for_room()
        if wait > 0:
            self.reply(429, SLOW_DOWN, {"Retry-After": f"{wait:.3f}"})
        else:
            super().converse(user)


@contextmanager
def limiting(per_second: float, burst: float, delay_seconds: float) -> Iterator[LimitingServer]:
    """Serve on a free port inside the block."""
    server = LimitingServer(Admission.of(per_second, burst), delay_seconds)
    with serving_in_a_thread(server):
        yield server
