"""A provider on loopback with a limit per minute that it tells nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.simulated_provider import Bucket
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.serving import serving_in_a_thread


class LimitingServer(AnsweringServer):
    """Refuses with 429 and a `Retry-After` what is beyond its bucket."""

    request_queue_size = 512

    def __init__(self, bucket: Bucket, delay_seconds: float) -> None:
        super().__init__(delay_seconds, LimitingHandler)
        self._bucket = bucket
        self._admission = threading.Lock()
        self.answered_at: list[float] = []
        self.refused_at: list[float] = []

    def wait_for_room(self) -> float:
        """Admit a request and return 0, or refuse it and return how long to wait."""
        with self._admission:
            now = time.monotonic()
            wait = self._bucket.until(1, now)
            if wait > 0:
                self.refused_at.append(now)
            else:
                self._bucket.level -= 1
                self.answered_at.append(now)
            return wait

    def rate(self, start: float, end: float) -> float:
        """Return the requests a second that were admitted between two times."""
        return sum(start <= at < end for at in self.answered_at) / (end - start)

    def refused_share(self, start: float, end: float) -> float:
        """Return which share of the requests was refused between two times."""
        refused = sum(start <= at < end for at in self.refused_at)
        return refused / max(1, refused + sum(start <= at < end for at in self.answered_at))


class LimitingHandler(AnsweringHandler):
    """Talks to one client."""

    server: LimitingServer

    def converse(self, user: str) -> None:
        """Answer, if there is room."""
        wait = self.server.wait_for_room()
        if wait > 0:
            self.reply(429, b'{"error":{"message":"slow down"}}', {"Retry-After": f"{wait:.3f}"})
        else:
            super().converse(user)


@contextmanager
def limiting(per_second: float, burst: float, delay_seconds: float) -> Iterator[LimitingServer]:
    """Serve on a free port inside the block."""
    bucket = Bucket(per_minute=60 * per_second, capacity=burst, at=time.monotonic())
    server = LimitingServer(bucket, delay_seconds)
    with serving_in_a_thread(server):
        yield server
