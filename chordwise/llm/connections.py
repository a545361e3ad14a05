"""The connections of one thread to providers, all of which keep to the deadline of its call."""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

import httpcore
import httpx

from chordwise.llm.deadline_network import Deadline, DeadlineNetwork

# A thread talks to its model and perhaps to a fallback or two.
CONNECTIONS_PER_THREAD = 4
KEEP_ALIVE_SECONDS = 30.0


class Channel:
    """One thread's connections and the deadline of its running call; closes with the thread."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.deadline = Deadline()
        self.transport: httpx.BaseTransport = _Connections(self.deadline)
        weakref.finalize(self, self.transport.close)


class _Connections(httpx.BaseTransport):
    """Carries httpx's requests over connections that keep to the deadline, one to each address.

    A pool would look at all of its connections twice for each request, for other threads that there
    are none of here.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._network = DeadlineNetwork(deadline)
        self._connections: dict[tuple[bytes, bytes, int | None], httpcore.HTTPConnection] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=cast("httpx.SyncByteStream", request.stream),
        )
        answer = self._connection(sent.url).handle_request(sent)
        body = Body(cast("_Closable", answer.stream))
        return httpx.Response(answer.status, headers=answer.headers, stream=body, request=request)

    def _connection(self, url: httpcore.URL) -> httpcore.HTTPConnection:
        """Return the open connection to an address, or a new one."""
        address = (url.scheme, url.host, url.port)
        kept = self._connections.pop(address, None)
        if kept is not None and not _is_usable(kept):
            kept.close()
            kept = None
        while len(self._connections) >= CONNECTIONS_PER_THREAD:
            self._connections.pop(next(iter(self._connections))).close()
        self._connections[address] = connection = kept or httpcore.HTTPConnection(
            url.origin,
            ssl_context=_certificates(),
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=self._network,
        )
        return connection

    def close(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()


def _is_usable(connection: httpcore.HTTPConnection) -> bool:
    return connection.is_idle() and not connection.is_closed() and not connection.has_expired()


class _Closable(Iterable[bytes]):
    """What the body of an answer is: iterable, and closed to give the connection back."""

    def close(self) -> None: ...


class Body(httpx.SyncByteStream):
    """The body of an answer, of which `received_bytes` were read."""

    def __init__(self, stream: _Closable) -> None:
        self._stream = stream
        self.received_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self.received_bytes += len(piece)
            yield piece

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()


@cache
def _certificates() -> ssl.SSLContext:
    """Make the trust store once: it takes 20 ms and is safe to share between threads."""
    return httpx.create_ssl_context()
