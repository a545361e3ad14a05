"""The parts of a request and its answer that are the same for all providers over HTTP.

An error answer is classified by its body, then by its headers, then by its status, which is
ambiguous: 429 has two meanings (too many requests, or no quota left), 400 has five.
"""

from __future__ import annotations

import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from chordwise.domain.addresses import secrets_in
from chordwise.domain.json_values import JsonObject, JsonValue, at, integer, text
from chordwise.domain.pictures import Picture
from chordwise.errors import (
    ConfigurationError,
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
from chordwise.llm.limits.permits import ReportedLimits, reported_limits
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.transport import CALL_HEADER, JsonResponse, JsonTransport, excerpt
from chordwise.settings import ModelSettings

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
        milliseconds = _nonnegative(headers.get(f"{prefix}retry-after-ms", ""))
        seconds = _nonnegative(headers.get(f"{prefix}retry-after", ""))
        if milliseconds is not None:
            seconds = milliseconds / 1000
        elif seconds is None:
            seconds = _until_date(headers, prefix, wall_clock)
        if seconds is not None:
            return min(seconds, MAX_BELIEVED_SECONDS)
    return None


def _nonnegative(value: str) -> float | None:
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


KEYLESS_HINT = (
    "No key was sent: set api_key_env of the model to the variable that holds one, and check model "
    "and base_url."
)


class HttpModel(ChatModel, ABC):
    """A model behind an operation of an API; the key may be empty for servers that require none.

    `endings` are the path of the operation, and other ends of an address that stand before it.
    `codes` and `phrases` are the errors of the API, for `Fault.kind`.
    """

    public_base_url: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]
    codes: ClassVar[Mapping[str, Kind]]
    phrases: ClassVar[Mapping[str, Kind]]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
    ) -> None:
        self.settings = settings
        self.key = checked_key(api_key)
        self.label = f"{settings.provider}/{settings.model}"
        self.transport = transport or JsonTransport()

    @property
    def profile(self) -> ModelProfile:
        """Return the profile from the settings of the model."""
        return ModelProfile(
            provider=self.settings.provider,
            model=self.settings.model,
            context_tokens=self.settings.context_tokens,
            max_output_tokens=self.settings.max_output_tokens,
            max_output_tokens_on_retry=self.settings.output_ceiling,
        )

    @abstractmethod
    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the JSON that `complete` sends."""

    @abstractmethod
    def completion(self, body: JsonObject) -> Completion:
        """Parse an answer of the API.

        Raises:
            ModelError: It contains no completion.
        """

    def complete(self, request: CompletionRequest) -> Completion:
        """Send one request.

        Limits and cost in the headers of the answer are added; that cost replaces the body's.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        url, headers = self.address(self.endings[0]), self.with_key()
        if request.call_id:
            headers[CALL_HEADER] = request.call_id
        seconds = request.limit_seconds(self.settings.timeout_seconds)
        response = self.transport.post_json(url, headers, self.body(request), seconds)
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or answer.get("error"):
            raise self.failure(response, request.user, request.system)
        completion, cost_usd = self.completion(answer), _usd(response.headers.get(COST_HEADER, ""))
        if cost_usd is None:
            cost_usd = completion.reported_cost_usd
        limits = reported_limits(response.headers)
        return replace(completion, limits=limits, reported_cost_usd=cost_usd)

    def address(self, path: str) -> str:
        """Return the address of an operation at the server of the settings."""
        return endpoint(self.settings.base_url or self.public_base_url, path, *self.endings)

    def with_key(self) -> dict[str, str]:
        """Return the headers, including that of the key."""
        key = self.key.get_secret_value()
        return {**self.headers, **({"authorization": f"Bearer {key}"} if key else {})}

    def failure(self, response: JsonResponse, *prompt: str) -> ModelError:
        """Return the error for an error answer; its text repeats neither the key nor the prompt."""
        fault, key = read_fault(response), self.key.get_secret_value()
        kind = fault.kind(self.codes, self.phrases)
        hint = "" if key or kind is not ModelAccessError else KEYLESS_HINT
        secrets = (key, *secrets_in(self.settings.base_url), *prompt)
        return fault.error(kind, self.label, secrets, hint)


def endpoint(base_url: str, path: str, *endings: str) -> str:
    """Return the address of an operation below `base_url`, which may have one of the endings.

    The query (Azure's `api-version`) is kept. The settings reject invalid web addresses.
    """
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/")
    for ending in endings:
        base = base.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, base + path, parts.query, ""))


def checked_key(api_key: SecretStr) -> SecretStr:
    """Return the key in a form that is valid in a header.

    Raises:
        ConfigurationError: It contains characters that no key has; the HTTP library would put the
            whole key into its error.
    """
    key = api_key.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "The API key contains invalid characters.",
            "Copy it again, without quotes, spaces or line breaks.",
        )
    return SecretStr(key)


MAX_TOKENS = 1_000_000_000
"""The largest plausible token count; a larger one is an error of the server."""
MAX_REPORTED_USD = Decimal(10_000)
"""Reported costs from this amount upward are implausible and are ignored."""
COST_HEADER = "x-litellm-response-cost"
"""US dollars, in answers of LiteLLM's proxy; missing if it does not know the model's price."""
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`, or an empty one if there is no object."""
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` if it is missing or implausible."""
    number = integer(value.get(key))
    return number if number is not None and 0 <= number <= MAX_TOKENS else None


def cost_in_usage(usage: JsonObject) -> Decimal | None:
    """Return the cost in US dollars from the `usage` of OpenRouter's answers.

    With the user's own key for the upstream provider (`is_byok`), `cost` is only OpenRouter's fee,
    and the upstream provider's charge is added to it.
    """
    cost_usd = _number(usage, "cost")
    if usage.get("is_byok") is not True:
        return cost_usd
    charged_usd = _number(child(usage, "cost_details"), "upstream_inference_cost")
    if cost_usd is None or charged_usd is None:
        return None
    return cost_usd + charged_usd


def _number(value: JsonObject, key: str) -> Decimal | None:
    number = value.get(key)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return _usd(repr(number)) if is_number else None


def _usd(written: str) -> Decimal | None:
    """Return an amount in US dollars; `None` if it is malformed or implausible for a request."""
    if not _NUMBER.fullmatch(written):
        return None
    usd = Decimal(written)
    return usd if usd < MAX_REPORTED_USD else None


def content_of(request: CompletionRequest, shown: Callable[[Picture], JsonObject]) -> JsonValue:
    """Return the text of a request, after its pictures in the provider's format (`shown`)."""
    if not request.pictures:
        return request.user
    pictures: list[JsonValue] = [shown(picture) for picture in request.pictures]
    return [*pictures, {"type": "text", "text": request.user}]


def storable(text: str) -> str:
    """Return the text with NUL and lone surrogates replaced, which PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
