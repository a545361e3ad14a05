"""An HTTP server on raw sockets that misbehaves as a test demands, and records its requests."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from chordwise.domain.json_values import JsonObject, JsonValue

DRIP_SECONDS = 0.05
# Longer than any test may take, so that waiting for the end of a drip fails the test.
DRIPPED_BYTES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A received request; header names are in lower case."""

    line: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> JsonObject:
        return cast("JsonObject", json.loads(self.content))


@dataclass(slots=True)
class Connection:
    """An accepted connection, as passed to a behavior; `stopped` is set when the test ends."""

    socket: socket.socket
    stopped: threading.Event
    dripped: int = 0

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def drip(self, data: bytes, every_seconds: float = DRIP_SECONDS) -> None:
        """Send slowly, byte by byte, until the client disconnects or the test ends."""
        for position in range(len(data)):
            if self.stopped.wait(every_seconds):
                return
            self.send(data[position : position + 1])
            self.dripped += 1

    def reset(self) -> None:
        """Abort the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Behavior: TypeAlias = Callable[[Connection], None]


@dataclass(slots=True)
class FaultyServer:
    """Plays `behaviors` in turn, one for each request; the last one for all further requests.

    `greeting` is played on each connection instead, before anything is read.
    """

    base_url: str
    greeting: Behavior | None = None
    behaviors: list[Behavior] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    def play(self, *behaviors: Behavior) -> None:
        self.behaviors[:] = behaviors

    def next_behavior(self) -> Behavior:
        return self.behaviors.pop(0) if len(self.behaviors) > 1 else self.behaviors[0]


@contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """Serve on loopback, with a thread for each connection."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FaultyServer(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        acceptor = threading.Thread(target=_accept, args=(listener, server, stopped))
        acceptor.start()
        try:
            yield server
        finally:
            stopped.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()


def _accept(listener: socket.socket, server: FaultyServer, stopped: threading.Event) -> None:
    threads: list[threading.Thread] = []
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            break
        server.connections += 1
        connection = Connection(accepted, stopped)
        threads.append(threading.Thread(target=_converse, args=(connection, server)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _converse(connection: Connection, server: FaultyServer) -> None:
    connection.socket.settimeout(DRIP_SECONDS)
    with connection.socket, suppress(OSError):
        if server.greeting is not None:
            server.greeting(connection)
            return
        while (received := receive(connection)) is not None:
            server.received.append(received)
            server.next_behavior()(connection)


def receive(connection: Connection) -> Received | None:
    """Read the next request; `None` if the client disconnects before it is complete."""
    head, separator, content = _read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    if not separator:
        return None
    line, *fields = head.decode().split("\r\n")
    pairs = (entry.split(": ", 1) for entry in fields)
    headers = {name.lower(): value for name, value in pairs}
    while len(content) < int(headers.get("content-length", "0")):
        piece = _read(connection)
        if not piece:
            return None
        content += piece
    return Received(line=line, headers=headers, content=content)


def _read_until(connection: Connection, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = _read(connection)
        if not piece:
            return b""
        data += piece
    return data


def _read(connection: Connection) -> bytes:
    while not connection.stopped.is_set():
        try:
            return connection.socket.recv(65_536)
        except TimeoutError:
            continue
    return b""


def answer(
    body: JsonValue | bytes,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> Behavior:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(raw)}\r\n{extra}\r\n"
    )
    return lambda connection: connection.send(head.encode() + raw)


def silence(connection: Connection) -> None:
    connection.stopped.wait()


def header_drip(connection: Connection) -> None:
    connection.drip(b"HTTP/1.1 200 OK\r\nx-padding: " + b"a" * DRIPPED_BYTES)


def body_drip(connection: Connection) -> None:
    """Send the header at once and the body byte by byte."""
    connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n")
    connection.drip(b" " * DRIPPED_BYTES)


def interim_drip(connection: Connection) -> None:
    """Send interim answers one after the other, and never the final one."""
    while not connection.stopped.wait(DRIP_SECONDS):
        connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def reset_mid_body(connection: Connection) -> None:
    """Announce a hundred bytes, send ten, and reset the connection."""
    connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b" " * 10)
    connection.reset()


def endless_body(connection: Connection) -> None:
    """Send 200 MB."""
    connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 209715200\r\n\r\n")
    for _ in range(200):
        connection.send(b" " * 1_048_576)


def hang_up(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_RDWR)
