"""Classification of a provider's error answers: by body, then by header, then by status.

The status is ambiguous: 429 has two meanings (too many requests, or no quota left), 400 has five.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from chordwise.domain.json_values import JsonObject, JsonValue, at, text
from chordwise.errors import (
    ContextTooLongError,
    InvalidAnswerError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelRequestError,
    PausingError,
    QuotaExceededError,
    RateLimitedError,
    RefusedError,
    TransientError,
)
from chordwise.llm.reported_limits import ReportedLimits, reported_limits
from chordwise.llm.transport import JsonResponse, excerpt

Kind: TypeAlias = type[ModelError]
LOWEST_ERROR_STATUS = 400
# Invalid key, no money, proxy authentication: these concern every model.
_ABOUT_THE_KEY = frozenset({401, 402, 407})
LOWEST_SERVER_ERROR_STATUS = 500
TOO_MANY_REQUESTS = 429
# 408 and 409 are lock and server timeouts; 425 too early; 498 is Groq's full flex tier, 499 means
# that a proxy gave up waiting; 501 and 505 are permanent.
_STATUSES: Mapping[int, Kind] = {
    401: ModelAccessError,
    402: QuotaExceededError,
    403: ModelAccessError,
    404: ModelAccessError,
    405: ModelAccessError,
    407: ModelAccessError,
    408: ModelOverloadedError,
    409: ModelOverloadedError,
    413: ContextTooLongError,
    425: ModelOverloadedError,
    TOO_MANY_REQUESTS: RateLimitedError,
    498: ModelOverloadedError,
    499: ModelOverloadedError,
    501: ModelRequestError,
    505: ModelRequestError,
}
_SENTENCES: Mapping[Kind, str] = {
    QuotaExceededError: "has no credit or quota left for this key",
    ModelAccessError: "refuses the key, the account, the model's name or the address",
    RateLimitedError: "takes no more requests for now",
    ModelOverloadedError: "is overloaded or unavailable for now",
    ContextTooLongError: "says that the prompt is too long for it",
    RefusedError: "declines to answer",
    InvalidAnswerError: "could not produce an answer in the required format",
    ModelRequestError: "rejects the request",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error answer as the provider sent it; `codes` are sorted from specific to general.

    `should_retry` is the header `x-should-retry`, `None` if it is not sent.
    """

    status: int
    codes: tuple[str, ...]
    message: str
    should_retry: bool | None = None
    retry_after_seconds: float | None = None
    limits: ReportedLimits = field(default_factory=dict)

    def kind(self, codes: Mapping[str, Kind], phrases: Mapping[str, Kind]) -> Kind:
        """Return the class of error: by code, by phrase, by header, by status."""
        for code in self.codes:
            if code in codes:
                return codes[code]
        message = self.message.lower()
        for phrase, kind in phrases.items():
            if phrase in message:
                return kind
        return self._kind_by_header() or self._kind_by_status()

    def error(self, kind: Kind, label: str, hidden: Sequence[str], hint: str = "") -> ModelError:
        """Return the error with short quotes of the provider that repeat no `hidden` text."""
        code = f", {excerpt(self.codes[0], hidden)}" if self.codes else ""
        quote = excerpt(self.message, hidden)
        quoted = f": “{quote}”" if quote else ""
        error = kind(f"{label} {_SENTENCES[kind]} (HTTP {self.status}{code}){quoted}.", hint)
        if isinstance(error, TransientError):
            error.retry_after_seconds = self.retry_after_seconds
            error.reported_limits = self.limits
        if isinstance(error, PausingError):
            is_money = isinstance(error, QuotaExceededError)
            error.is_about_key = is_money or self.status in _ABOUT_THE_KEY
        return error

    def _kind_by_header(self) -> Kind | None:
        if self.should_retry is None or self.status < LOWEST_ERROR_STATUS:
            return None
        if self.should_retry:
            return RateLimitedError if self.status == TOO_MANY_REQUESTS else ModelOverloadedError
        if self.status == TOO_MANY_REQUESTS:
            return QuotaExceededError
        return ModelRequestError if self.status >= LOWEST_SERVER_ERROR_STATUS else None

    def _kind_by_status(self) -> Kind:
        if self.status in _STATUSES:
            return _STATUSES[self.status]
        # Gateways report an outage of their upstream as a “successful” answer with an error.
        overloaded = not LOWEST_ERROR_STATUS <= self.status < LOWEST_SERVER_ERROR_STATUS
        return ModelOverloadedError if overloaded else ModelRequestError


def read_fault(response: JsonResponse) -> Fault:
    """Parse an error answer of any form: object, string, list, FastAPI's `detail`, or no JSON."""
    error, status = _error_object(response.body), response.status
    code = error.get("code")
    if status < LOWEST_ERROR_STATUS and isinstance(code, int) and code in range(400, 600):
        status = code  # of the error in a gateway's 200
    paths = ("/details/error_code", "/innererror/code", "/code", "/type")
    codes = (text(at(error, path)).lower() for path in paths)
    return Fault(
        status=status,
        codes=tuple(dict.fromkeys(filter(None, codes))),
        message=text(error.get("message")) or text(error.get("detail")) or response.excerpt,
        should_retry={"true": True, "false": False}.get(response.headers.get("x-should-retry", "")),
        retry_after_seconds=retry_after_seconds(response.headers),
        limits=reported_limits(response.headers),
    )


def _error_object(body: JsonValue) -> JsonObject:
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return {"message": body}
    error = body.get("error")
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) else body


MAX_BELIEVED_SECONDS = 86_400.0
_OF_THE_PROVIDER_BEHIND = "llm_provider-"
"""LiteLLM's proxy adds this prefix to the headers of its upstream provider."""


def retry_after_seconds(
    headers: Mapping[str, str], wall_clock: Callable[[], float] = time.time
) -> float | None:
    """Return the wait that the (lower-case) headers request; `None` if they request none.

    `retry-after-ms` (Azure) is more precise and takes precedence over `retry-after`, which holds
    seconds or a date (RFC 9110 §10.2.3). A date is compared with the server's own `date`, if it
    sends one. A wait that LiteLLM's proxy passes on from its provider is used only if the proxy
    requests none itself.
    """
    for prefix in ("", _OF_THE_PROVIDER_BEHIND):
        milliseconds = _number(headers.get(f"{prefix}retry-after-ms", ""))
        seconds = _number(headers.get(f"{prefix}retry-after", ""))
        if milliseconds is not None:
            seconds = milliseconds / 1000
        elif seconds is None:
            seconds = _until_date(headers, prefix, wall_clock)
        if seconds is not None:
            return min(seconds, MAX_BELIEVED_SECONDS)
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until_date(
    headers: Mapping[str, str], prefix: str, wall_clock: Callable[[], float]
) -> float | None:
    due = _timestamp(headers.get(f"{prefix}retry-after", ""))
    if due is None:
        return None
    now = _timestamp(headers.get(f"{prefix}date", ""))
    return max(0.0, due - (wall_clock() if now is None else now))


def _timestamp(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
