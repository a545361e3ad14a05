"""Tests of rejecting invalid addresses in the settings without repeating them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.settings import FILE_NAME, load

SECRET = "s3cr3tP4ssword"  # noqa: S105 - planted, to be looked for
OTHER = "0th3rP4rt"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(**flags: str) -> str:
    """Load invalid settings; return the message, which has no part of the secret."""
    with pytest.raises(ConfigurationError) as caught:
        load(None, **flags)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    chain = "".join(traceback.format_exception(caught.value))
    said = f"{caught.value.what}\n{caught.value.hint}\n{chain}"
    assert SECRET not in said
    assert OTHER not in said
    return caught.value.what


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is empty"),
        (f"amqp://user:{SECRET}@host//", "amqp:// is not supported; use redis://HOST:6379/0"),
        (f"sentinel://:{SECRET}@host:26379", "sentinel:// is not supported"),
        (f"valkey://:{SECRET}@host", "valkey:// is not supported"),
        ("memory://", "memory:// is not supported"),
        ("sqs://", "sqs:// is not supported"),
        (f"redis+tls://:{SECRET}@host", "redis+tls:// is not supported"),
        (f"user:{SECRET}@host:6379", "it is not an address of Valkey or Redis: redis://HOST"),
        ("host:6379/0", "it is not an address"),
        ("redis:///0", "it has no host"),
        (f"redis://:{SECRET}@/0", "it has no host"),
        (f"redis://:{SECRET}#{OTHER}@host/0", "it has no host"),
        (f"redis://user:{SECRET}/{OTHER}@host/0", "its port is not a number"),
        (f"redis://:{SECRET}@host:port/0", "its port is not a number"),
        (f"redis://:{SECRET}@host:/0", "its port is not a number"),
        ("redis://host:0/0", "its port is not a number"),
        ("redis://host:65536/0", "its port is not a number"),
        (f"redis://host:{'9' * 5000}/0", "its port is not a number"),
        ("redis://[::1/0", "its host cannot be parsed"),
        ("redis://host/first", "its database is not a number"),
        ("redis://host/-1", "its database is not a number"),
        ("redis://host/0/1", "its database is not a number"),
        (f"redis://host/{'9' * 5000}", "its database is not a number"),
        (f"redis://host/0;redis://:{SECRET}@other/0", "its database is not a number"),
        (f"redis://host/0?password={SECRET}", "redis:// takes no options after the ?"),
        ("redis://host/0?ssl_cert_reqs=required", "redis:// takes no options after the ?"),
        ("rediss://host/0?ssl_cert_reqs=maybe", "ssl_cert_reqs must be required, optional or none"),
        ("rediss://host/0?db=1", "rediss:// takes only the options ssl_cert_reqs"),
        ("redis+socket://run/valkey.sock", "it has no socket path"),
        ("unix://", "it has no socket path"),
        ("unix:///run/valkey.sock?db=one", "its database is not a number"),
        ("unix:///run/valkey.sock?timeout=1", "takes only the options db, virtual_host"),
    ],
)
def test_an_invalid_broker_address_is_rejected(url: str, reason: str) -> None:
    assert reason in refused(broker_url=url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is empty"),
        (f"mysql://user:{SECRET}@host/db", "mysql:// is not supported; Chordwise needs PostgreSQL"),
        ("sqlite:///results.db", "sqlite:// is not supported"),
        ("jdbc:postgresql://host/db", "it is not an address of PostgreSQL: postgresql://USER"),
        (f"host=host password={SECRET}", "it is not an address of PostgreSQL"),
        (f"postgresql://user:{SECRET}@host:port/db", "its port is not a number"),
        (f"postgresql://user:{SECRET}@host:/db", "its port is not a number"),
        ("postgresql://host:70000/db", "its port is not a number"),
        ("postgresql://one:5432,two:5432/db", "its port is not a number"),
        (f"postgresql://user:{SECRET}@{OTHER}@host/db", "percent-encoded, such as %40 for @"),
        (f"postgresql://user:{SECRET}@/db", "it has no host"),
        ("postgresql://:5432/db", "it has no host"),
    ],
)
def test_an_invalid_database_address_is_rejected(url: str, reason: str) -> None:
    assert reason in refused(database_url=url)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("broker_url", "redis://host"),
        ("broker_url", "redis://host:6379/15"),
        ("broker_url", f"REDIS://user:{SECRET}@[::1]:6379/0"),
        ("broker_url", f"redis://:{SECRET}@{OTHER}@host/0"),
        (
            "broker_url",
            f"rediss://:{SECRET}@host/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/etc/ca.pem",
        ),
        ("broker_url", f"redis+socket://:{SECRET}@/run/valkey.sock?virtual_host=2"),
        ("broker_url", "unix:///run/valkey.sock?db=2"),
        ("database_url", "postgresql://host/db"),
        ("database_url", f"postgres://user:{SECRET}@host:5432/db?sslmode=require"),
        ("database_url", f"postgresql+psycopg://user:{SECRET}/{OTHER}@[::1]:5432/db"),
        ("database_url", f"postgresql://user:{SECRET}@/db?host=/run/postgresql"),
        ("database_url", "postgresql:///db"),
        ("database_url", "postgresql://user@/db"),
    ],
)
def test_a_valid_address_is_accepted(name: str, url: str) -> None:
    assert getattr(load(None, **{name: url}), name) is not None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"user:{SECRET}@host/v1", "it is not an address that begins with https://"),
        ("localhost:8000/v1", "it is not an address that begins with https://"),
        (f"ftp://user:{SECRET}@host/v1", "ftp:// is not supported; use https:// or http://"),
        ("http:///v1", "it has no host"),
        (f"http://user:{SECRET}@host:port/v1", "its port is not a number"),
        ("http://host:0/v1", "its port is not a number"),
    ],
)
def test_an_invalid_address_of_a_model_is_rejected(url: str, reason: str) -> None:
    Path(FILE_NAME).write_text(
        f'[models.house]\nprovider = "openai"\nmodel = "m"\nbase_url = "{url}"\n', "utf-8"
    )

    assert f"models.house.base_url: {reason}" in refused()
