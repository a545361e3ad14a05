"""Tests of passwords, limits of login attempts, and accepted host names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chordwise.settings import WebSettings
from chordwise.web.access_control import _is_ours, hash_password, rules_for, verify_password
from chordwise.web.login import Attempts, _is_page

SECRET = "correct horse battery"  # noqa: S105 - of this test


def test_a_password_is_verified_by_its_hash() -> None:
    one, other = hash_password(SECRET), hash_password(SECRET)

    assert one != other
    assert "$" not in one  # Compose would interpret it as a variable
    assert verify_password(SECRET, one)
    assert verify_password(SECRET, other)
    assert not verify_password(SECRET + " ", one)
    assert not any(
        verify_password(SECRET, broken) for broken in ("", "scrypt:x", "scrypt:!:!", SECRET)
    )


def test_waits_between_attempts_grow() -> None:
    """Five attempts of a name are free, and each further one doubles the wait, up to a limit."""
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    assert [attempts.begin("ada", "one") for _ in range(6)] == [0, 0, 0, 0, 0, 1]

    waits = []
    for _ in range(4):
        now += attempts.begin("ada", "one")
        assert attempts.begin("ada", "one") == 0
        waits.append(attempts.begin("ada", "one"))

    assert waits == [2, 4, 8, 16]
    attempts.succeed("ada", "one")
    assert attempts.begin("ada", "one") == 0


def test_a_name_does_not_lock_out_others_at_its_address() -> None:
    """Everybody behind a proxy has its address: the waits that they share stay short."""
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    for _ in range(20):
        attempts.begin("mallory", "proxy")
    assert attempts.begin("mallory", "proxy") > 0
    assert attempts.begin("ada", "proxy") == 0

    for number in range(1_000):
        now += attempts.begin(f"name {number}", "proxy")

    assert attempts.begin("ada", "proxy") <= 8
    assert attempts.begin("ada", "elsewhere") == 0


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
        ("127.0.0.1/static/", "", False),
        ("127.0.0.1:8484/static/?", "", False),
        ("127.0.0.1,127.0.0.1", "", False),
        ("localhost#", "", False),
        ("", "", False),
    ],
)
def test_only_known_host_names_are_accepted(host: str, public_url: str, *, expected: bool) -> None:
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
def test_a_login_redirects_only_to_own_pages(address: str, *, expected: bool) -> None:
    assert _is_page(address) is expected


def test_the_token_is_accepted_only_from_this_machine() -> None:
    settings = WebSettings.model_validate({"password_hash": hash_password(SECRET)})

    addresses = ("127.0.0.1", "::1", "localhost", "0.0.0.0")  # noqa: S104 - not bound to
    tokens = [rules_for(settings, address, SECRET).token for address in addresses]

    assert tokens == [SECRET, SECRET, SECRET, ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"public_url": "documents.example.com"},
        {"trusted_user_header": "X-Remote-User"},
        {"trusted_proxies": ["10.0.0.2"]},
        {"trusted_user_header": "X-Remote-User", "trusted_proxies": ["everyone"]},
    ],
)
def test_insecure_settings_are_rejected(wrong: dict[str, object]) -> None:
    """A trusted header needs the address of its proxy, and an address needs its scheme."""
    with pytest.raises(ValidationError):
        WebSettings.model_validate(wrong)
