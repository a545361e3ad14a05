"""An address that nobody can be told at is refused at the start, and never repeated."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chordwise.settings import DeliverySettings

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the convention's own example


def test_an_address_with_a_secret_is_taken() -> None:
    """With the prefix of the convention or without it."""
    for secret in (SECRET, SECRET.removeprefix("whsec_")):
        settings = DeliverySettings.model_validate(
            {"webhook_url": "https://example.org/hook?token=x", "webhook_secret": secret}
        )
        assert settings.webhook_secret.get_secret_value() == secret
        assert "token" not in repr(settings)


def test_http_has_to_be_allowed() -> None:
    """It shows everybody on the way what is sent."""
    values = {"webhook_url": "http://example.org", "webhook_secret": SECRET, "allow_http": True}

    assert DeliverySettings.model_validate(values).allow_http
    with pytest.raises(ValidationError, match="take https, or set allow_http"):
        DeliverySettings.model_validate({**values, "allow_http": False})


@pytest.mark.parametrize(
    ("url", "secret", "reason"),
    [
        ("ftp://example.org", SECRET, "ftp:// is not supported; use https://"),
        ("https://", SECRET, "names no host"),
        ("example.org/hook", SECRET, "begins with https://"),
        ("https://example.org:none", SECRET, "port is not a number"),
        (" http://example.org", SECRET, "take https, or set allow_http"),
        ("https://exämple.org", SECRET, "begins with https://"),
        ("https://example.org", "", "webhook_secret is not 24 to 64 bytes"),
        ("https://example.org", "hunter2!", "webhook_secret is not base64"),
    ],
)
def test_what_cannot_work_is_refused(url: str, secret: str, reason: str) -> None:
    """The sentence says which entry, and holds neither address nor secret."""
    with pytest.raises(ValidationError, match=reason) as caught:
        DeliverySettings.model_validate({"webhook_url": url, "webhook_secret": secret})

    assert "hunter2" not in str(caught.value)
    assert "example" not in str(caught.value)
