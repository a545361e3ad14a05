"""The language between a reader and its parser process: a JSON header, then bytes, on a socket."""

from __future__ import annotations

import json
import socket
import struct
import time

from chordwise.domain.json_values import JsonObject, as_object

_LENGTHS = struct.Struct("!IQ")
_HEADER_BYTES = 1024 * 1024


def send(
    channel: socket.socket, header: JsonObject, body: bytes, deadline: float | None = None
) -> None:
    """Send one frame before `deadline` on the monotonic clock; `None` waits for ever.

    Raises:
        TimeoutError: The other side did not take it in time.
        ConnectionError: The other side is gone.
    """
    encoded = json.dumps(header).encode()
    _limit(channel, deadline)
    channel.sendall(_LENGTHS.pack(len(encoded), len(body)) + encoded)
    _limit(channel, deadline)
    channel.sendall(body)


def receive(
    channel: socket.socket, body_bytes: int, deadline: float | None = None
) -> tuple[JsonObject, bytes]:
    """Return the next frame, whose body may be `body_bytes` long at most.

    Raises:
        TimeoutError: It did not arrive in time.
        ConnectionError: The other side is gone or sends nonsense.
    """
    header_length, body_length = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, deadline))
    if header_length > _HEADER_BYTES or body_length > body_bytes:
        raise ConnectionError("a frame is longer than allowed")
    header = _header(_exactly(channel, header_length, deadline))
    return header, _exactly(channel, body_length, deadline)


def _header(encoded: bytes) -> JsonObject:
    try:
        header = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise ConnectionError("a header is no JSON") from error
    if not isinstance(header, dict):
        raise ConnectionError("a header is no object")
    return as_object(header)


def _exactly(channel: socket.socket, length: int, deadline: float | None) -> bytes:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        _limit(channel, deadline)
        received = channel.recv_into(view)
        if not received:
            raise ConnectionError("the other side closed the channel")
        view = view[received:]
    return bytes(buffer)


def _limit(channel: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        channel.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)
