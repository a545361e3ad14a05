"""Tests of the server: its address, and its response while the database is unavailable."""

from __future__ import annotations

import socket

import httpx
import pytest
from pydantic import SecretStr

from chordwise.embedded.home import home_at, read_address
from chordwise.errors import ConfigurationError
from chordwise.settings import Settings
from chordwise.web.server import serve
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
        found = read_address(home.web_link_file)
        mode = home.web_link_file.stat().st_mode & 0o777

    assert found is not None
    assert found.url == served.link
    assert mode == 0o600
    assert home.web.stat().st_mode & 0o777 == 0o700
    assert read_address(home.web_link_file) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "documents.example.com"])  # noqa: S104 - which is refused
def test_an_unprotected_public_address_is_refused(settings: Settings, address: str) -> None:
    """Other hosts could reach it, and neither a password nor a proxy protects it."""
    wrong = with_settings(settings, "web", address=address)

    with pytest.raises(ConfigurationError, match="open to every user"):
        serve(wrong, lambda _: None)


def test_a_port_in_use_is_refused(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        wrong = with_settings(settings, "web", port=other.getsockname()[1])

        with pytest.raises(ConfigurationError, match="cannot be served") as refused:
            serve(wrong, lambda _: None)

    assert "--port" in refused.value.hint
