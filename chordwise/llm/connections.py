"""A thread's connections to providers, all of which observe the deadline of its call."""

from __future__ import annotations

import os
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TypeAlias, cast

import httpcore
import httpx

# A thread calls its model and perhaps one or two fallbacks.
CONNECTIONS_PER_THREAD = 4
KEEP_ALIVE_SECONDS = 30.0


class Channel:
    """One thread's connections and the deadline of its running call; closed with the thread."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.deadline = Deadline()
        self.transport: httpx.BaseTransport = _Connections(self.deadline)
        weakref.finalize(self, self.transport.close)


class _Connections(httpx.BaseTransport):
    """An httpx transport over connections that observe the deadline, one per address.

    A pool would check all of its connections twice for each request, on behalf of other threads;
    here there is only one thread.
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
            ssl_context=certificates(),
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
    """The body of an answer: iterable; closing it releases the connection."""

    def close(self) -> None: ...


class Body(httpx.SyncByteStream):
    """The body of an answer; `received_bytes` counts the bytes that were read."""

    def __init__(self, stream: _Closable) -> None:
        self._stream = stream
        self.received_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self.received_bytes += len(piece)
            yield piece

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()


@cache
def certificates() -> ssl.SSLContext:
    """Load the trust store once: it takes 20 ms and is safe to share between threads."""
    return httpx.create_ssl_context()


CONNECT_SECONDS = 10.0
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""A function that returns the addresses of a host for a port."""
# httpcore's alias for this type does not exist at run time on Python 3.14.
_SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


class Deadline:
    """The time by which the running call of one thread has to end.

    `received_bytes` counts the bytes received since the last write.
    """

    def __init__(self) -> None:
        self._ends_at = 0.0
        self.received_bytes = 0

    def start(self, seconds: float) -> None:
        """Start a call that may take `seconds`."""
        self._ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left; never zero, which a socket would interpret as “don't wait”.

        Raises:
            httpcore.TimeoutException: No time is left.
        """
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the deadline of the call has passed")
        return left


def addresses_of(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host from this machine's resolver.

    Raises:
        httpcore.ConnectError: The host cannot be resolved.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class DeadlineNetwork(httpcore.NetworkBackend):
    """Opens connections within the deadline; tries the addresses from `resolve` in order."""

    def __init__(
        self,
        deadline: Deadline,
        *,
        resolve: Resolve = addresses_of,
        sockets: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._deadline = deadline
        self._resolve = resolve
        self._sockets = sockets or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - replaced by the deadline
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that accepts."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._resolve(host, port):
            seconds = min(CONNECT_SECONDS, self._deadline.remaining())
            try:
                stream = self._sockets.connect_tcp(
                    address, port, seconds, local_address, socket_options or ()
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream, self._deadline)
        raise failure


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose reads, writes and TLS handshake observe the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - as above
        """Return the received data; wait until there is some."""
        data = self._stream.read(max_bytes, self._deadline.remaining())
        self._deadline.received_bytes += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        """Send all of `buffer` within the deadline, even to a peer that reads slowly."""
        self._deadline.received_bytes = 0
        connection = cast("socket.socket", self._stream.get_extra_info("socket"))
        unsent = memoryview(buffer)
        while unsent:
            connection.settimeout(self._deadline.remaining())
            try:
                unsent = unsent[connection.send(unsent) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection at once."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        """Return the encrypted connection (Python applies one timeout to the whole handshake)."""
        seconds = min(CONNECT_SECONDS, self._deadline.remaining())
        stream = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> object:
        """Return the stream's value for `info`, such as the socket."""
        return cast("object", self._stream.get_extra_info(info))
