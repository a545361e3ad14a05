"""Tests of the control socket: valid requests are read, and no client blocks the supervisor."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from chordwise.embedded import stack_plan
from chordwise.embedded.home import Home, Level, home_at
from chordwise.embedded.stack_plan import Message, StackPlan
from chordwise.errors import ConfigurationError

PLAN = StackPlan(
    level=Level.DATABASE,
    fingerprint="",
    environment={},
    directory=Path("/"),
    database_url=None,
    broker_url=None,
    idle_seconds=600,
    grace_seconds=10,
)
REQUEST = PLAN.model_dump_json().encode() + b"\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    lent = home_at(tmp_path / "home")
    lent.prepare()
    yield lent
    lent.discard_sockets()


@pytest.fixture
def listener(home: Home) -> Iterator[socket.socket]:
    with stack_plan.listen(home) as lent:
        yield lent


def a_client(listener: socket.socket, sent: bytes = b"") -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    client.sendall(sent)
    return client


def taken(listener: socket.socket) -> socket.socket:
    request = stack_plan.next_request(listener)
    assert request is not None
    assert request[0] == PLAN
    return request[1]


def test_the_socket_is_closed_to_other_users(listener: socket.socket) -> None:
    path = Path(listener.getsockname())

    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]


def test_a_socket_that_cannot_be_created_is_named(home: Home, listener: socket.socket) -> None:
    with pytest.raises(ConfigurationError, match=f"{listener.getsockname()} cannot be created: "):
        stack_plan.listen(home)


@pytest.mark.parametrize("sent", [b"garbage\n", b"{}\n", b"\xff\xfe\n", b"\n"])
def test_an_invalid_request_is_refused(listener: socket.socket, sent: bytes) -> None:
    with a_client(listener, sent) as client, client.makefile("rb") as lines:
        request = stack_plan.next_request(listener)
        last = Message.model_validate_json(lines.readlines()[-1])

    assert request is None
    assert last.code == "configuration"
    assert "chordwise down" in last.hint


def send_forever(client: socket.socket) -> None:
    """Send one byte after another until the supervisor closes the connection."""
    with suppress(OSError):
        while True:
            client.sendall(b"x")


@pytest.mark.parametrize("is_endless", [False, True])
def test_an_unfinished_request_is_dropped(listener: socket.socket, *, is_endless: bool) -> None:
    with (
        ThreadPoolExecutor() as pool,
        a_client(listener, b"{") as slow,
        a_client(listener, REQUEST),
    ):
        if is_endless:
            pool.submit(send_forever, slow)
        left = stack_plan.next_request(listener)
        taken(listener).close()

    assert left is None


def test_the_request_of_a_disconnected_command_is_ignored(listener: socket.socket) -> None:
    a_client(listener, REQUEST).close()

    assert stack_plan.next_request(listener) is None


def test_commands_that_stop_reading_or_disconnect_do_not_block(listener: socket.socket) -> None:
    with a_client(listener, REQUEST), taken(listener) as unread:
        while stack_plan.send(unread, Message(activity="x" * 100_000)):
            continue
    with a_client(listener, REQUEST):
        left = taken(listener)

    with left:
        assert not stack_plan.send(left, Message())
