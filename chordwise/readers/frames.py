"""The protocol between a reader and its parser process: a JSON header, then bytes, on a socket.

The file itself is passed as an open descriptor, before the header that requests its text.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import BinaryIO

from chordwise.domain.json_values import JsonObject, as_object

_LENGTHS = struct.Struct("!IQ")
_HEADER_BYTES = 1024 * 1024
_SHORT_BODY_BYTES = 64 * 1024
_FILE = b"F"


def send(
    channel: socket.socket, header: JsonObject, body: bytes, deadline: float | None = None
) -> None:
    """Send one frame before `deadline` on the monotonic clock; `None` waits without limit.

    Raises:
        TimeoutError: The peer did not receive it in time.
        ConnectionError: The peer is gone.
    """
    encoded = json.dumps(header).encode()
    start = _LENGTHS.pack(len(encoded), len(body)) + encoded
    # A short body is sent with its header; a long one is not copied for this.
    pieces = (start + body,) if len(body) <= _SHORT_BODY_BYTES else (start, body)
    for piece in pieces:
        _limit(channel, deadline)
        channel.sendall(piece)


def send_file(channel: socket.socket, descriptor: int, deadline: float) -> None:
    """Send the descriptor of an open file.

    Raises:
        TimeoutError: The peer did not receive it in time.
        ConnectionError: The peer is gone.
    """
    _limit(channel, deadline)
    socket.send_fds(channel, [_FILE], [descriptor])


def receive_file(channel: socket.socket) -> BinaryIO:
    """Receive the next file, positioned at its beginning.

    Raises:
        ConnectionError: The peer is gone or sends invalid data.
    """
    mark, descriptors, _, _ = socket.recv_fds(channel, len(_FILE), 1)
    if mark != _FILE or len(descriptors) != 1:
        raise ConnectionError("the other side closed the channel")
    file = os.fdopen(descriptors[0], "rb")
    file.seek(0)
    return file


def receive(
    channel: socket.socket, body_bytes: int, deadline: float | None = None
) -> tuple[JsonObject, bytearray]:
    """Receive the next frame, whose body may have at most `body_bytes` bytes.

    Raises:
        TimeoutError: It did not arrive in time.
        ConnectionError: The peer is gone or sends invalid data.
    """
    header_length, body_length = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, deadline))
    if header_length > _HEADER_BYTES or body_length > body_bytes:
        raise ConnectionError("a frame is longer than allowed")
    header = _header(_exactly(channel, header_length, deadline))
    return header, _exactly(channel, body_length, deadline)


def _header(encoded: bytearray) -> JsonObject:
    try:
        header = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise ConnectionError("a header is not JSON") from error
    if not isinstance(header, dict):
        raise ConnectionError("a header is not an object")
    return as_object(header)


def _exactly(channel: socket.socket, length: int, deadline: float | None) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        _limit(channel, deadline)
        received = channel.recv_into(view)
        if not received:
            raise ConnectionError("the other side closed the channel")
        view = view[received:]
    return buffer


def _limit(channel: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        channel.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)
