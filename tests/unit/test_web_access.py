"""Passwords, guesses at them, and the names under which the pages answer."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chordwise.settings import WebSettings
from chordwise.web.access import _is_ours, hashed, is_password, rules_for
from chordwise.web.login import FailedLogins, _is_page

SECRET = "correct horse battery"  # noqa: S105 - of this test


def test_a_password_is_known_by_its_hash() -> None:
    """Two hashes of it differ, and each knows it; nothing else is it, a broken hash included."""
    one, other = hashed(SECRET), hashed(SECRET)

    assert one != other
    assert "$" not in one  # Compose would take it for a variable
    assert is_password(SECRET, one)
    assert is_password(SECRET, other)
    assert not is_password(SECRET + " ", one)
    assert not any(is_password(SECRET, broken) for broken in ("", "scrypt:x", "scrypt:!:!", SECRET))


def test_guesses_are_few_and_forgotten_after_a_while() -> None:
    """Five from an address, a hundred from all; a quarter of an hour later they are none."""
    now = 0.0
    failed = FailedLogins(clock=lambda: now)
    for _ in range(5):
        assert failed.wait_seconds("one") == 0
        failed.note("one")

    assert failed.wait_seconds("one") == 901
    assert failed.wait_seconds("other") == 0
    for number in range(95):
        failed.note(f"address {number}")
    assert failed.wait_seconds("new") == 901
    now = 901.0
    assert failed.wait_seconds("one") == 0


@pytest.mark.parametrize(
    ("host", "public_url", "expected"),
    [
        ("127.0.0.1:8484", "", True),
        ("[::1]:8484", "", True),
        ("localhost:8484", "", True),
        ("192.168.1.20", "", True),
        ("documents.example.com", "https://documents.example.com", True),
        ("DOCUMENTS.example.com:443", "https://documents.example.com", True),
        ("documents.example.com", "", False),
        ("localhost.attacker.example", "", False),
        ("127.0.0.1.attacker.example", "https://documents.example.com", False),
        ("127.0.0.1@attacker.example", "", False),
        ("[::1", "", False),
        ("", "", False),
    ],
)
def test_a_name_of_ours_is_told_from_others(host: str, public_url: str, *, expected: bool) -> None:
    """Addresses and the names that we know; whatever else leads here is not ours."""
    assert _is_ours(host, public_url) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/runs?status=open", True),
        ("//attacker.example", False),
        ("/\\attacker.example", False),
        ("https://attacker.example", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_a_login_leads_to_pages_of_ours(address: str, *, expected: bool) -> None:
    """Whatever the address of the login says."""
    assert _is_page(address) is expected


def test_the_token_is_for_this_machine() -> None:
    """Elsewhere the password counts; the token would open the pages from everywhere."""
    settings = WebSettings.model_validate({"password_hash": hashed(SECRET)})

    addresses = ("127.0.0.1", "::1", "localhost", "0.0.0.0")  # noqa: S104 - as one may
    found = [rules_for(settings, address, SECRET).token for address in addresses]

    assert found == [SECRET, SECRET, SECRET, ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"public_url": "documents.example.com"},
        {"trusted_user_header": "X-Remote-User"},
        {"trusted_proxies": ["10.0.0.2"]},
        {"trusted_user_header": "X-Remote-User", "trusted_proxies": ["everyone"]},
    ],
)
def test_settings_that_would_let_others_in_are_refused(wrong: dict[str, object]) -> None:
    """A header is believed from an address only, and an address needs its scheme."""
    with pytest.raises(ValidationError):
        WebSettings.model_validate(wrong)
