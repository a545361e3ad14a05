"""Tests of addresses of PostgreSQL."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.storage.postgresql import address_of

ADDRESSES = {
    "postgresql://ann:p%40ss/w?rd@db.lan:5433/letters": {
        "host": "db.lan",
        "port": "5433",
        "user": "ann",
        "password": "p@ss/w?rd",
        "dbname": "letters",
    },
    "postgresql+psycopg://ann@/letters?host=/run/sockets&connect_timeout=3": {
        "user": "ann",
        "dbname": "letters",
        "host": "/run/sockets",
        "connect_timeout": "3",
    },
    "postgres://[::1]:5433/letters": {"host": "::1", "port": "5433", "dbname": "letters"},
    "postgresql://one,two/letters": {"host": "one,two", "dbname": "letters"},
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_has_the_parameters_of_its_url(url: str) -> None:
    assert address_of(SecretStr(url)) == ADDRESSES[url]


@pytest.mark.parametrize("url", ["letters", "mysql://db.lan/letters", "postgresql://db.lan:port/x"])
def test_another_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        address_of(SecretStr(url))
