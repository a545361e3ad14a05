"""Every way to be slow, and one deadline for the whole call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from chordwise.errors import ModelTransportError
from chordwise.llm.transport import JsonTransport
from tests.peers import faulty_server as peer

DEADLINE_SECONDS = 2.0
TOLERANCE = 0.1
PATIENT_SECONDS = 30.0
# No socket's buffers take this much.
LARGE = b'{"text": "' + b"a" * 40_000_000 + b'"}'
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
# A handshake record of 16 kB, of which the greeting is never complete.
_TLS_RECORD = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"


def dripping(head: bytes, start: bytes = b"", drops: bytes = b" ") -> peer.Behavior:
    """Send the head at once, and then a start and so many drops byte by byte."""

    def drip(connection: peer.Connection) -> None:
        connection.send(head)
        connection.drip(start + drops * (peer.DRIPPED_BYTES // len(drops)))

    return drip


def body_of(status: bytes) -> peer.Behavior:
    """Send the body of an answer with this status byte by byte."""
    return dripping(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2000\r\n\r\n")


def slow_reading(connection: peer.Connection) -> None:
    """Take a kilobyte of the request now and then."""
    while not connection.stopped.wait(peer.DRIP_SECONDS) and connection.socket.recv(1_024):
        pass


AFTER_THE_REQUEST: Mapping[str, peer.Behavior] = {
    "silence": peer.silence,
    "head": peer.header_drip,
    "interim answers": peer.interim_drip,
    "body": peer.body_drip,
    "chunk": dripping(_CHUNKED + b"1000\r\n"),
    "chunks": dripping(_CHUNKED, drops=b"1\r\n \r\n"),
    "size of a chunk": dripping(_CHUNKED, b"1;padding=", b"a"),
    "trailer": dripping(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-padding: ", b"a"),
    "body of an error": body_of(b"500 Internal Server Error"),
    "body of a refusal": body_of(b"429 Too Many Requests"),
    "body of a redirect": body_of(b"307 Temporary Redirect\r\nlocation: http://127.0.0.1/"),
}
BEFORE_THE_REQUEST: Mapping[str, tuple[str, peer.Behavior]] = {
    "TLS, silence": ("https", peer.silence),
    "TLS, greeting": ("https", dripping(b"", _TLS_RECORD)),
    "request not read": ("http", peer.silence),
    "request read slowly": ("http", slow_reading),
}


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """Return the address of a server for each way to be slow."""
    found = {}
    with ExitStack() as servers:
        for name, behavior in AFTER_THE_REQUEST.items():
            server = servers.enter_context(peer.faulty_server())
            server.play(behavior)
            found[name] = server.base_url
        for name, (scheme, greeting) in BEFORE_THE_REQUEST.items():
            server = servers.enter_context(peer.faulty_server())
            server.greeting = greeting
            found[name] = server.base_url.replace("http:", f"{scheme}:")
        yield found


def test_every_slowness_ends_at_the_deadline(addresses: dict[str, str]) -> None:
    """Whatever comes drop by drop, the call ends at its deadline, give or take a tenth.

    They are all slow at the same time, each towards a thread that has its connections ready.
    """
    transport = JsonTransport()
    ready = Barrier(len(addresses))

    def share_of_the_deadline(name: str) -> float:
        content = LARGE if name in BEFORE_THE_REQUEST else b"{}"
        transport.post_json(answering.base_url, {}, {}, PATIENT_SECONDS)
        ready.wait(PATIENT_SECONDS)
        started = time.monotonic()
        with pytest.raises(ModelTransportError, match=r"time|within 2 s"):
            transport.send("POST", addresses[name], {}, content, DEADLINE_SECONDS)
        return (time.monotonic() - started) / DEADLINE_SECONDS

    with peer.faulty_server() as answering, ThreadPoolExecutor(len(addresses)) as threads:
        answering.play(peer.answer({"fine": True}))
        shares = dict(zip(addresses, threads.map(share_of_the_deadline, addresses), strict=True))
    transport.close()

    wrong = {name: each for name, each in shares.items() if abs(each - 1) > TOLERANCE}
    assert wrong == {}
