"""How long a server asks us to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.llm.providers.faults import LONGEST_BELIEVED_SECONDS, retry_after_seconds

NOON = 1_795_521_600.0  # Tue, 24 Nov 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0.0),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 09:00:10 GMT",
                "date": "Tue, 24 Nov 2026 09:00:00 GMT",
            },
            10.0,
        ),
        ({"retry-after": "99999999999"}, LONGEST_BELIEVED_SECONDS),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_every_form_of_the_header_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are understood, nonsense counts as nothing."""
    assert retry_after_seconds(headers, wall_clock=lambda: NOON) == seconds


@given(st.text(), st.text(), st.text())
def test_no_header_breaks_it(seconds: str, milliseconds: str, date: str) -> None:
    """Whatever a server sends, the result is a wait within reason or none."""
    headers = {"retry-after": seconds, "retry-after-ms": milliseconds, "date": date}

    found = retry_after_seconds(headers)

    assert found is None or 0 <= found <= LONGEST_BELIEVED_SECONDS
