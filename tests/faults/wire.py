"""Malformed HTTP responses: slow, incomplete, doubled or aborted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

from tests.faults.provider import Treatment
from tests.peers import faulty_server as peer
from tests.peers.answering_server import AnsweringHandler, completion, summary

_SLOWLY_SECONDS = 0.5
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"

Spoiled: TypeAlias = Callable[[bytes], peer.Behavior]
"""Returns the behavior of the connection, given the correct answer."""


def spoiling(spoiled: Spoiled) -> Treatment:
    """Return the treatment of a request whose correct answer is damaged on its way."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        handler.close_connection = True
        right = json.dumps(completion(summary(user))).encode()
        connection = peer.Connection(handler.connection, threading.Event())
        with suppress(OSError):  # the client has disconnected
            spoiled(right)(connection)

    return Treatment(answering=answer)


def _sending(head: bytes, body: bytes) -> peer.Behavior:
    return lambda connection: connection.send(head + b"\r\n" + body)


def _length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def _resetting(sent: bytes) -> peer.Behavior:
    def behavior(connection: peer.Connection) -> None:
        connection.send(sent)
        connection.reset()

    return behavior


def _cut_stream(right: bytes) -> peer.Behavior:
    """Answer with events, as to a request for a stream, and stop in the middle of one."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
    return _sending(head, b"data: " + right + b"\n\ndata: " + right[: len(right) // 2])


def _cut_chunks(right: bytes) -> peer.Behavior:
    head = _HEAD + b"transfer-encoding: chunked\r\n"
    return _sending(head, b"%x\r\n" % len(right) + right + b"\r\n")


def _dripping_body(right: bytes) -> peer.Behavior:
    def behavior(connection: peer.Connection) -> None:
        connection.send(_HEAD + _length(right) + b"\r\n")
        connection.drip(right, _SLOWLY_SECONDS)

    return behavior


BROKEN: Mapping[str, Treatment] = {
    "reset before the head": spoiling(lambda _: _resetting(b"")),
    "reset in the head": spoiling(lambda _: _resetting(_HEAD)),
    "reset in the body": spoiling(
        lambda right: _resetting(_HEAD + _length(right) + b"\r\n" + right[:-10])
    ),
    "end in the head": spoiling(lambda _: lambda connection: connection.send(_HEAD)),
    "end in the body": spoiling(lambda right: _sending(_HEAD + _length(right), right[:-10])),
    "end between chunks": spoiling(_cut_chunks),
    "truncated JSON": spoiling(lambda right: _sending(_HEAD + _length(right[:-10]), right[:-10])),
    "two objects": spoiling(lambda right: _sending(_HEAD + _length(right + right), right + right)),
    "truncated events": spoiling(_cut_stream),
}
"""Answers that look complete for a moment, but are invalid (L05)."""

SLOW: Mapping[str, Treatment] = {
    "the head": spoiling(
        lambda _: (
            lambda connection: connection.drip(
                _HEAD + b"x-padding: " + b"a" * peer.DRIPPED_BYTES, _SLOWLY_SECONDS
            )
        )
    ),
    "the body": spoiling(_dripping_body),
    "no response": Treatment(holds=True),
}
"""Answers that send a byte every half second, or none (L03, L04)."""
