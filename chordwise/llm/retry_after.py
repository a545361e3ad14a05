"""How long a server asks us to wait, read from its headers and believed only within reason."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

LONGEST_BELIEVED_SECONDS = 86_400.0


def retry_after_seconds(
    headers: Mapping[str, str], wall_clock: Callable[[], float] = time.time
) -> float | None:
    """Return the wait that the (lower-case) headers ask for; `None` where they ask for none.

    `retry-after-ms` (Azure) is finer and wins over `retry-after`, which holds seconds or a date
    (RFC 9110 §10.2.3). A date is compared with the server's own `date`, where it sends one.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    seconds = _number(headers.get("retry-after", ""))
    if milliseconds is not None:
        seconds = milliseconds / 1000
    elif seconds is None:
        seconds = _until_date(headers, wall_clock)
    return None if seconds is None else min(seconds, LONGEST_BELIEVED_SECONDS)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until_date(headers: Mapping[str, str], wall_clock: Callable[[], float]) -> float | None:
    due = _timestamp(headers.get("retry-after", ""))
    if due is None:
        return None
    now = _timestamp(headers.get("date", ""))
    return max(0.0, due - (wall_clock() if now is None else now))


def _timestamp(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
