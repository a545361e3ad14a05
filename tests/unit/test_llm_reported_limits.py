"""What providers' headers say of their limits."""

from __future__ import annotations

import pytest

from chordwise.llm.reported_limits import Quota, QuotaKind, duration_seconds, reported_limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250µs", 0.00025),
        ("17", 17.0),
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s soon", None),
        ("nan", None),
        ("1e99", None),
    ],
)
def test_durations_are_go_s(text: str, seconds: float | None) -> None:
    """Go's durations and bare seconds are understood, nothing else."""
    assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_openai_s_headers() -> None:
    """Requests and tokens are told apart."""
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "25000",
        "x-ratelimit-reset-tokens": "10s",
    }

    found = reported_limits(headers)

    assert found == {
        QuotaKind.REQUESTS: Quota(limit=500, remaining=499, reset_seconds=0.12),
        QuotaKind.TOKENS: Quota(limit=30_000, remaining=25_000, reset_seconds=10.0),
    }


def test_a_limit_per_day_is_none_per_minute() -> None:
    """Groq counts requests per day under the same name: 14,400 of them take long to come back."""
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "10ms",
    }

    assert set(reported_limits(headers)) == {QuotaKind.TOKENS}


def test_anthropic_s_headers() -> None:
    """The reset is a timestamp, compared with the server's own date; input and output differ."""
    headers = {
        "date": "Tue, 24 Nov 2026 12:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": "2026-11-24T12:00:01Z",
        "anthropic-ratelimit-output-tokens-limit": "80000",
        "anthropic-ratelimit-output-tokens-remaining": "79000",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-24T11:59:00Z",
    }

    found = reported_limits(headers)

    assert found == {
        QuotaKind.REQUESTS: Quota(limit=4_000, remaining=3_999, reset_seconds=1.0),
        QuotaKind.OUTPUT_TOKENS: Quota(limit=80_000, remaining=79_000, reset_seconds=0.0),
    }


@pytest.mark.parametrize("limit", ["", "0", "-5", "many", "5.5", "9" * 40, "٣"])
def test_nonsense_is_no_limit(limit: str) -> None:
    """What is no sensible number says nothing."""
    headers = {"x-ratelimit-limit-requests": limit, "anthropic-ratelimit-tokens-limit": limit}

    assert reported_limits(headers) == {}


def test_a_limit_alone_counts() -> None:
    """What is left and the reset may be missing or broken."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-reset-requests": "whenever",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-reset": "tomorrow",
    }

    assert reported_limits(headers) == {
        QuotaKind.REQUESTS: Quota(limit=60),
        QuotaKind.TOKENS: Quota(limit=1_000),
    }
