"""Tests of the server: its address, and its response while the database is unavailable."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from chordwise.embedded.home import home_at, read_address
from chordwise.errors import ConfigurationError, ExitCode
from chordwise.settings import Settings
from chordwise.web.server import Served, serve
from tests.fakes.commands import environment_of, output_of
from tests.fakes.pipeline import with_settings
from tests.web.conftest import serving


def test_an_unavailable_database_is_reported_and_retried(settings: Settings) -> None:
    """The page is a 503, and the browser reloads it automatically."""
    nowhere = SecretStr("postgresql://chordwise@127.0.0.1:1/chordwise")
    with serving(settings.model_copy(update={"database_url": nowhere})) as served:
        answer = httpx.get(served.link, follow_redirects=True)

    assert answer.status_code == 503
    assert "Unavailable" in answer.text
    assert int(answer.headers["refresh"]) > 0
    assert "127.0.0.1" in answer.text
    assert "Traceback" not in answer.text


def test_the_link_is_private_to_the_user(settings: Settings) -> None:
    """It exists while pages are served, and no other user can read it."""
    home = home_at(settings.home)
    with serving(settings) as served:
        address = read_address(home.web_link_file)
        mode = home.web_link_file.stat().st_mode & 0o777
        again = output_of("web", "--home", str(settings.home)).out
        link = output_of("web", "--link", "--home", str(settings.home)).out

    assert address is not None
    assert again == f"{served.link.partition('?')[0]}\n"
    assert link == f"{served.link}\n"
    assert address.url == served.link
    assert mode == 0o600
    assert home.web.stat().st_mode & 0o777 == 0o700
    assert read_address(home.web_link_file) is None


def test_a_refusal_is_a_sentence_and_a_hint(settings: Settings) -> None:
    """What was being loaded when the command ended adds no traceback."""
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "chordwise", "web"],
        env={**environment_of(settings), "CHORDWISE_WEB__ADDRESS": "192.0.2.1"},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == ExitCode.CONFIGURATION
    assert [line.partition(":")[0] for line in refused.stderr.splitlines()] == ["Error", "Hint"]


def test_an_unprotected_public_address_is_refused(settings: Settings) -> None:
    """Other hosts could reach it, and neither a password nor a proxy protects it.

    Nor can a port in use be served.
    """
    for address in ("0.0.0.0", "192.0.2.1", "documents.example.com"):  # noqa: S104 - which is refused
        with pytest.raises(ConfigurationError, match="open to every user"):
            serve(with_settings(settings, "web", address=address), lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = with_settings(settings, "web", port=other.getsockname()[1])
        with pytest.raises(ConfigurationError, match="cannot be served") as refused:
            serve(taken, lambda _: None)
    assert "--port" in refused.value.hint


def connected(served: Served) -> socket.socket:
    """Return a connection that has sent nothing yet."""
    address = urlsplit(served.link)
    return socket.create_connection((address.hostname or "", address.port or 0), 60)


def is_open(connection: socket.socket) -> bool:
    """Return whether the server has not closed a connection on which it sends nothing."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_idle_connections_do_not_stop_the_pages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond a number, those that have waited longest are closed, without a line in the log."""
    monkeypatch.setattr("chordwise.web.server._MAX_CONNECTIONS", 20)
    with serving(settings) as served, ExitStack() as closing:
        idle = []
        for _ in range(100):
            idle.append(closing.enter_context(connected(served)))
            if len(idle) % 10 == 0:
                assert httpx.get(served.link).status_code == 303
        left = [is_open(connection) for connection in idle]

    assert sum(left) < 20
    assert not any(left[:70])
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def test_a_connection_without_a_request_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single bytes do not extend the time, neither before nor after a response.

    A client sends nothing, half of the headers, or no body.
    """
    monkeypatch.setattr("chordwise.web.server._REQUEST_SECONDS", 0.2)
    with serving(settings) as served:
        for sent in (b"", REQUEST, REQUEST + b"Content-Length: 100\r\n\r\n"):
            received = b""
            with connected(served) as connection:
                connection.sendall(sent)
                with suppress(ConnectionError):
                    while piece := connection.recv(65_536):
                        received += piece
                        connection.sendall(b"x")

            assert received.startswith(b"HTTP/1.1 200") == sent.endswith(b"\r\n\r\n")


def test_a_client_that_receives_nothing_is_disconnected(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise answers to requests that are sent ahead would occupy memory and a connection."""
    monkeypatch.setattr("chordwise.web.server._WRITE_SECONDS", 0.2)
    request = b"GET /static/vendor/uPlot.iife.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(settings) as served, connected(served) as connection:
        connection.settimeout(10)
        with pytest.raises(ConnectionError):
            send_without_end(connection, request * 1_000)


def send_without_end(connection: socket.socket, data: bytes) -> None:
    """Send the same again and again; the buffers of the system take up many megabytes."""
    while True:
        connection.sendall(data)
