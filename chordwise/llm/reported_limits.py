"""The rate limits that providers report in the headers of their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

# A limit that takes longer than this to replenish in full is per day, not per minute.
MAX_MINUTE_SECONDS = 120.0

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?<![\d.])(\d++(?:\.\d*+)?)(ms|us|µs|ns|h|m|s)")
_LARGEST = 10**12


class QuotaKind(StrEnum):
    """The kinds of quota that providers count per minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit per minute and its remaining amount."""

    limit: int
    remaining: int | None = None


ReportedLimits: TypeAlias = Mapping[QuotaKind, Quota]


def reported_limits(headers: Mapping[str, str]) -> ReportedLimits:
    """Return the limits that the (lower-case) headers of an answer name; daily ones are left out.

    OpenAI and compatible servers send `x-ratelimit-limit-requests`, and resets as Go durations, by
    which daily limits are recognized. Anthropic sends `anthropic-ratelimit-requests-limit`.
    """
    quotas: dict[QuotaKind, Quota] = {}
    for kind in QuotaKind:
        name = kind.value.replace("_", "-")
        if quota := _anthropic(name, headers) or _openai(name, headers):
            quotas[kind] = quota
    return quotas


def duration_seconds(text: str) -> float | None:
    """Return the seconds of a Go duration (`6m0s`, `12ms`) or of a bare number."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < _LARGEST else None


def _openai(name: str, headers: Mapping[str, str]) -> Quota | None:
    limit = _count(headers.get(f"x-ratelimit-limit-{name}", ""))
    remaining = _count(headers.get(f"x-ratelimit-remaining-{name}", ""))
    reset = duration_seconds(headers.get(f"x-ratelimit-reset-{name}", ""))
    if not limit or _is_daily(limit, remaining, reset):
        return None
    return Quota(limit=limit, remaining=remaining)


def _is_daily(limit: int, remaining: int | None, reset: float | None) -> bool:
    # Groq, and OpenAI for free accounts, count requests per day under the same name.
    if remaining is None or reset is None or remaining >= limit:
        return False
    return reset * limit / (limit - remaining) > MAX_MINUTE_SECONDS


def _anthropic(name: str, headers: Mapping[str, str]) -> Quota | None:
    limit = _count(headers.get(f"anthropic-ratelimit-{name}-limit", ""))
    remaining = _count(headers.get(f"anthropic-ratelimit-{name}-remaining", ""))
    return Quota(limit=limit, remaining=remaining) if limit else None


def _count(text: str) -> int | None:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > len(str(_LARGEST)):
        return None
    return min(int(digits), _LARGEST)
