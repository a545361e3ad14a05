"""Tests of the proxy: it applies exactly the requested faults."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.fakes.processes import wait_until
from tests.faults.proxy import Proxy, Target, proxy_to


class Echo:
    """A server that returns everything it receives, and records it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.heard = bytearray()
        self.ended = 0

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4_096):
                self.heard += data
                connection.sendall(data)
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Echo(listener)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with proxy_to(Target(port=echo.listener.getsockname()[1])) as opened:
        yield opened


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    """Connect a client with a timeout of two seconds."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as client:
        yield client


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return client.recv(4_096)


def test_traffic_is_forwarded_in_both_directions(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert ask(client, b"hello") == b"hello"

    assert proxy.counts["connections"] == 1


def test_a_cut_resets_open_connections_only(proxy: Proxy) -> None:
    """The client receives a reset, and the next connection works."""
    with connected(proxy) as old, connected(proxy) as new_one:
        assert ask(old, b"hello") == b"hello"

        proxy.cut()

        with pytest.raises(ConnectionError):
            ask(old, b"again")
        new_one.close()
    with connected(proxy) as new:
        assert ask(new, b"hello") == b"hello"


def test_connections_are_refused_until_pass_on(proxy: Proxy) -> None:
    """New connections are closed at once, until `pass_on`."""
    proxy.refuse()

    with suppress(ConnectionError), connected(proxy) as client:
        assert client.recv(1) == b""
    proxy.pass_on()
    with connected(proxy) as client:
        assert ask(client, b"hello") == b"hello"
    assert proxy.counts["connections refused"] == 1


def test_swallowing_keeps_connections_open_and_silent(proxy: Proxy, echo: Echo) -> None:
    """No data arrives and no connection breaks; a connection that lost data stays silent."""
    with connected(proxy) as old:
        assert ask(old, b"hello") == b"hello"

        proxy.swallow()

        old.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ask(old, b"lost")
        with connected(proxy) as new:
            new.settimeout(0.3)
            with pytest.raises(TimeoutError):
                ask(new, b"lost too")
        proxy.pass_on()
        with pytest.raises(TimeoutError):
            ask(old, b"still lost")
    assert bytes(echo.heard) == b"hello"
    wait_until(lambda: echo.ended == 1, 2, "the server sees the end of the connection")


def test_a_delay_holds_each_piece_back(proxy: Proxy) -> None:
    proxy.delay(0.1)

    begun = time.monotonic()
    with connected(proxy) as client:
        assert ask(client, b"hello") == b"hello"

    assert time.monotonic() - begun >= 0.2


def test_a_drip_limits_the_bytes_per_second(proxy: Proxy) -> None:
    """A hundred bytes at 200 bytes per second take half a second, and arrive completely."""
    proxy.drip(200)

    begun = time.monotonic()
    with connected(proxy) as client:
        client.sendall(b"x" * 100)
        heard = b""
        while len(heard) < 100:
            heard += client.recv(4_096)

    assert heard == b"x" * 100
    assert time.monotonic() - begun >= 0.4


def test_the_response_to_a_pattern_is_dropped(proxy: Proxy, echo: Echo) -> None:
    """The pattern reaches the server; its response is lost, as often as requested."""
    proxy.drop_answer_after(b"COMMIT\0", holding=b"second")

    with connected(proxy) as first:
        assert ask(first, b"first COMMIT\0") == b"first COMMIT\0"
        assert ask(first, b"second COM") == b"second COM"
        with pytest.raises(ConnectionError):
            ask(first, b"MIT\0")
    with connected(proxy) as later:
        assert ask(later, b"second COMMIT\0") == b"second COMMIT\0"

    assert b"second COMMIT\0" in echo.heard
    assert proxy.answers_dropped == 1
