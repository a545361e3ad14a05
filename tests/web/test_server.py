"""The server: where it listens, and what it says while the database is away."""

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


def test_a_database_that_is_away_is_asked_for_again(settings: Settings) -> None:
    """The page says so with 503, and the browser loads it again automatically."""
    nowhere = SecretStr("postgresql://chordwise@127.0.0.1:1/chordwise")
    with serving(settings.model_copy(update={"database_url": nowhere})) as served:
        answer = httpx.get(served.link, follow_redirects=True)

    assert answer.status_code == 503
    assert "Unavailable" in answer.text
    assert int(answer.headers["refresh"]) > 0
    assert "127.0.0.1" in answer.text
    assert "Traceback" not in answer.text


def test_the_link_is_kept_for_us_alone(settings: Settings) -> None:
    """It is found while pages are served, and no other user can read it or the keys."""
    home = home_at(settings.home)
    with serving(settings) as served:
        found = read_address(home.web_link_file)
        kept = [home.web_link_file, home.web / "token", home.web / "secret"]
        modes = {path.name: path.stat().st_mode & 0o777 for path in kept}

    assert found is not None
    assert found.url == served.link
    assert set(modes.values()) == {0o600}
    assert home.web.stat().st_mode & 0o777 == 0o700
    assert read_address(home.web_link_file) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "documents.example.com"])  # noqa: S104 - which is refused
def test_an_address_that_lets_everyone_in_is_refused(settings: Settings, address: str) -> None:
    """Others could reach it, and there is neither a password nor a proxy that checks them."""
    wrong = with_settings(settings, "web", address=address)

    with pytest.raises(ConfigurationError, match="open to every user"):
        serve(wrong, lambda _: None)


def test_a_port_that_is_taken_is_refused(settings: Settings) -> None:
    """It says which, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        wrong = with_settings(settings, "web", port=other.getsockname()[1])

        with pytest.raises(ConfigurationError, match="cannot be served") as refused:
            serve(wrong, lambda _: None)

    assert "--port" in refused.value.hint
