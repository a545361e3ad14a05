"""Tests of webhook signatures against another implementation of the convention."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from chordwise.domain.webhook_signatures import key_of, signed_headers

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
