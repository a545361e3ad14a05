"""The socket on which commands send a plan to the supervisor, as lines of JSON."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from chordwise.embedded.home import CONTROL_SOCKET, Home, StackState
from chordwise.embedded.stack_plan import StackPlan
from chordwise.errors import ConfigurationError

# More than the kernel accepts as the environment of a process.
_MAX_REQUEST_BYTES = 8_000_000
# How long a command may take to send its request, or to read a message.
_CLIENT_SECONDS = 1.0
_TICK_SECONDS = 0.1


class Message(BaseModel, frozen=True):
    """A line from the supervisor; the last has the `state` of the stack, or `code` and `what`."""

    activity: str = ""
    state: StackState | None = None
    code: str = ""
    what: str = ""
    hint: str = ""


_NOT_UNDERSTOOD = Message(
    code=ConfigurationError.code,
    what="The running stack does not understand the request.",
    hint="It may be another version of Chordwise. Stop it with: chordwise down",
)


def request(path: Path, plan: StackPlan, deadline: float) -> Iterator[Message]:
    """Send a plan and yield the supervisor's messages; there are none if no supervisor listens."""
    with (
        suppress(OSError, ValidationError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        _limit(connection, deadline)
        connection.connect(str(path))
        connection.sendall(_line(plan))
        with connection.makefile("rb") as lines:
            for line in lines:
                yield Message.model_validate_json(line)
                _limit(connection, deadline)


def listen(home: Home) -> socket.socket:
    """Return a listening socket in the home, which only processes of this user can connect to.

    Raises:
        ConfigurationError: The file system has no sockets.
    """
    path = home.sockets() / CONTROL_SOCKET
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(_TICK_SECONDS)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # before listening
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The socket {path} cannot be created: {error.strerror}.",
            "Set CHORDWISE_HOME to a folder on a local disk.",
        ) from error
    return listener


def next_request(listener: socket.socket) -> tuple[StackPlan, socket.socket] | None:
    """Return the plan of the next request and its connection, or `None` if there is none now.

    A request is withdrawn if the command has closed the connection within a second.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    line = _read_line(connection)
    if line and send(connection, Message()):
        try:
            return StackPlan.model_validate_json(line), connection
        except ValidationError:
            send(connection, _NOT_UNDERSTOOD)
    connection.close()
    return None


def send(connection: socket.socket, message: Message) -> bool:
    """Send a message; return whether the command is still connected and reads it."""
    try:
        connection.settimeout(_CLIENT_SECONDS)
        connection.sendall(_line(message))
    except OSError:
        return False
    return True


def _read_line(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + _CLIENT_SECONDS
    line = bytearray()
    with suppress(OSError):
        while not line.endswith(b"\n") and len(line) < _MAX_REQUEST_BYTES:
            _limit(connection, deadline)
            line += connection.recv(65_536) or b"\n"
    return bytes(line) if line.endswith(b"\n") else b""


def _line(content: BaseModel) -> bytes:
    return content.model_dump_json().encode() + b"\n"


def _limit(connection: socket.socket, deadline: float) -> None:
    connection.settimeout(max(0.0, deadline - time.monotonic()))
