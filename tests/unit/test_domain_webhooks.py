"""Tests of webhooks: their signatures, and public and internal addresses in every notation."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from chordwise.domain.addresses import is_public
from chordwise.pipeline.deliveries.receivers.webhook import key_of, signed_headers

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


@given(st.text(alphabet="abc_0123", min_size=1), st.text())
def test_another_implementation_accepts_the_signatures(identity: str, body: str) -> None:
    now = int(datetime.now(UTC).timestamp())  # noqa: TID251 - the other one has a clock of its own

    headers = signed_headers(key_of(SECRET), identity, now, body.encode())

    sign = Webhook(SECRET).sign(identity, datetime.fromtimestamp(now, UTC), body)
    assert headers["webhook-signature"] == sign


def test_a_changed_body_is_detected() -> None:
    now = int(datetime.now(UTC).timestamp())  # noqa: TID251 - as above
    headers = dict(signed_headers(key_of(SECRET), "run_1", now, b'{"a": 1}'))
    other = base64.b64encode(bytes(32)).decode()

    assert Webhook(SECRET).verify('{"a": 1}', headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify('{"a": 2}', headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify('{"a": 1}', headers)


@pytest.mark.parametrize("secret", ["", "whsec_", "short", "whsec_c2hvcnQ=", "ä" * 40, "A" * 100])
def test_an_invalid_secret_is_rejected(secret: str) -> None:
    with pytest.raises(ValueError, match="base64") as caught:
        key_of(secret)

    assert not secret or secret not in str(caught.value)


INSIDE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",  # noqa: S104 - looked at, not bound to
    "100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:7f00:1", "::ffff:0:a9fe:a9fe", "400::1", "4000::1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001::1", "2001:db8::1", "3fff::1",
    "2002:7f00:1::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "5f00::1", "localhost", "",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize(
    ("address", "outside"),
    [*((address, False) for address in INSIDE), *((address, True) for address in OUTSIDE)],
)
def test_only_public_addresses_are_public(address: str, *, outside: bool) -> None:
    """This machine, private networks, metadata services and IPv4 within IPv6 are internal."""
    assert is_public(address) is outside


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_treated_as_the_address_itself(address: IPv4Address) -> None:
    mapped = IPv6Address(0xFFFF << 32 | int(address))
    translated = IPv6Address(0x64FF9B << 96 | int(address))

    assert is_public(str(mapped)) == is_public(str(translated)) == is_public(str(address))
