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
        self.transport: httpx.BaseTransport = _PoolTransport(self.deadline)
        weakref.finalize(self, self.transport.close)


class _PoolTransport(httpx.BaseTransport):
    """Carries httpx's requests over a connection pool that keeps to the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_certificates(),
            max_connections=CONNECTIONS_PER_THREAD,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=DeadlineNetwork(deadline),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                str(request.url),
                headers=request.headers.raw,
                content=cast("httpx.SyncByteStream", request.stream),
            )
        )
        stream = cast("_Closable", answer.stream)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(stream), request=request
        )

    def close(self) -> None:
        self._pool.close()


class _Closable(Iterable[bytes]):
    """What the pool's body streams are: iterable, and closed to give the connection back."""

    def close(self) -> None: ...


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: _Closable) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


@cache
def _certificates() -> ssl.SSLContext:
    """Make the trust store once: it takes 20 ms and is safe to share between threads."""
    return httpx.create_ssl_context()
