"""Tests that every accepted broker address works for messages, results and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from chordwise.errors import ServiceUnavailableError
from chordwise.llm.limits.shared_limits import open_client
from chordwise.pipeline.runtime import broker, messages
from chordwise.settings import Settings, load
from tests.conftest import Servers
from tests.peers import certificates
from tests.peers.certificates import Certificate
from tests.peers.tls_tunnel import tls_tunnel

REFUSED = (OperationalError, redis.ConnectionError, ServiceUnavailableError)


def reached(settings: Settings) -> dict[str, int]:
    """Return the number of the database that each user of the broker's address works in."""
    url = settings.broker_url
    assert url is not None
    app = messages.open_app(settings)
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=1)
        queue = connection.channel().client
        queue.ping()
    with app.backend.client as results, open_client(url) as limits:
        results.ping()
        limits.ping()
        broker.require_working(url)
        clients = {"messages": queue, "results": results, "limits": limits}
        return {
            name: int(client.connection_pool.connection_kwargs.get("db", 0))
            for name, client in clients.items()
        }


@pytest.fixture
def own_certificate(tmp_path: Path) -> Certificate:
    if certificates.OPENSSL_IS_ABSENT:
        pytest.skip("openssl is absent")
    return certificates.self_signed(tmp_path, "broker")


@pytest.fixture
def tls_address(servers: Servers, own_certificate: Certificate) -> Iterator[str]:
    parts = urlsplit(servers.valkey.url())
    with tls_tunnel(own_certificate.context(), Path(parts.path)) as port:
        yield f"rediss://:{parts.password}@localhost:{port}/3"


@pytest.mark.parametrize("scheme", ["redis+socket", "unix", "UNIX"])
@pytest.mark.parametrize(
    ("options", "number"), [("", 0), ("?virtual_host=2", 2), ("?db=2", 2)], ids=lambda value: value
)
def test_a_unix_socket(broker_url: SecretStr, scheme: str, options: str, number: int) -> None:
    """With the spelling of Celery or of redis-py, all users share one database."""
    _, _, place = broker_url.get_secret_value().partition("://")

    databases = reached(load(broker_url=f"{scheme}://{place}{options}"))

    assert databases == dict.fromkeys(("messages", "results", "limits"), number)


def test_tls_with_an_authority(tls_address: str, own_certificate: Certificate) -> None:
    databases = reached(
        load(broker_url=f"{tls_address}?ssl_ca_certs={own_certificate.certificate}")
    )

    assert databases == dict.fromkeys(("messages", "results", "limits"), 3)


@pytest.mark.parametrize("none", ["none", "CERT_NONE"])
def test_tls_without_verification(tls_address: str, none: str) -> None:
    assert reached(load(broker_url=f"{tls_address}?ssl_cert_reqs={none}"))["messages"] == 3


@pytest.mark.parametrize("options", ["", "?ssl_cert_reqs=required"])
def test_tls_refuses_a_certificate_that_is_not_trusted(tls_address: str, options: str) -> None:
    """This includes Celery's broker connection, which would accept any certificate by default."""
    settings = load(broker_url=f"{tls_address}{options}")

    with pytest.raises(REFUSED, match="CERTIFICATE_VERIFY_FAILED"):
        reached(settings)
    with pytest.raises(REFUSED, match="CERTIFICATE_VERIFY_FAILED"):
        messages.open_app(settings).backend.client.ping()
